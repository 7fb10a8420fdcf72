"""The official weights: what there is, fetching it, and proof that it is what it was."""
