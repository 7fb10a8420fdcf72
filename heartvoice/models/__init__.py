"""The networks as PyTorch modules, and their arithmetic; importing this package imports no torch."""
