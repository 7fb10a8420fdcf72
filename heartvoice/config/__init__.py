"""Sizes of all networks, by preset."""
