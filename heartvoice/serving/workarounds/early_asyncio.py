"""Imports asyncio when the model is loaded.

Fault (Triton 2.51): the stub imports asyncio late, and the server crashes (SIGSEGV) if that import fails.
Does: imports asyncio with the model.
Test: `test_asyncio_is_imported_before_a_model_runs`
Delete when: the stub imports asyncio before `execute`, or survives a failed import.
"""

import asyncio  # noqa: F401
