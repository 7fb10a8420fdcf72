"""The networks as PyTorch modules, and the arithmetic around them; importing this package imports no torch."""
