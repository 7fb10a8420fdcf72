"""Lists, fetches and verifies the official weights."""
