"""heartvoice: lyrics and tags in, a finished 48 kHz song out, served by NVIDIA Triton."""

__version__ = "0.1.0"
