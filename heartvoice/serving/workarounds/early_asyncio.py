"""Imports asyncio while there is memory for it.

Fault (Triton 2.51): the stub imports asyncio after its first `execute`, and if there is no memory for that, the
    exception kills the server with SIGSEGV.
Does: imports asyncio with the model.
Test: `test_asyncio_is_imported_before_a_model_runs`
Delete when: the stub imports asyncio before `execute`, or survives that it cannot.
"""

import asyncio  # noqa: F401
