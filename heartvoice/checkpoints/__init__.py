"""Checkpoint files: readers, checks of published files, and random weights."""
