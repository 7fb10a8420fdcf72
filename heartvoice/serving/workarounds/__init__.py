"""Workarounds in models' processes for faults of the embedded Triton server, version 2.51.0.

Each module handles one fault. Its docstring has four entries: the fault and its versions, the workaround, the test, and
the condition for deleting the module. `heartvoice.server.workarounds` has the supervisor's workarounds. One more fault
needs no code: `triton_python_backend_utils` is empty while a model is imported, so nothing uses it at import time.
"""
