"""Builds ONNX graphs from checkpoints and writes a Triton model repository."""
