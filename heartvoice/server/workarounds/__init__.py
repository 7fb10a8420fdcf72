"""Workarounds in the supervisor for faults of the embedded Triton server, version 2.51.0.

Each module handles one fault. `heartvoice.serving.workarounds` explains the entries of its docstring.
"""
