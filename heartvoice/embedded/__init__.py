"""The real Triton server out of a PyPI wheel: find it, start it, watch it, stop it."""
