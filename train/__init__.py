"""Training of the demo preset's networks, from a checkout; not packaged."""
