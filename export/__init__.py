"""Checkpoints into graphs, graphs into a Triton model repository."""
