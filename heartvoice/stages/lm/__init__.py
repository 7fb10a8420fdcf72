"""The language model: requests, scheduler and engines."""
