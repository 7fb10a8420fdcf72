"""One module for each fault of the embedded Triton server, version 2.51.0, that a model's process works around.

The docstring of each module has the same four entries: the fault and the versions that have it, what the module does
about it, the test that shows it, and the condition under which the module is deleted. `heartvoice.server.workarounds`
holds those of the supervisor. One more fault needs no code: `triton_python_backend_utils` is empty while a model is
being imported, so nothing uses it at import time.
"""
