"""Loadtest."""
