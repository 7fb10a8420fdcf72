"""Inference engines, the protocol for calling networks, and the exported repository on disk."""
