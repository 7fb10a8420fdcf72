"""One module for each fault of the embedded Triton server, version 2.51.0, that the supervisor works around.

The docstring of each module has the entries that `heartvoice.serving.workarounds` explains.
"""
