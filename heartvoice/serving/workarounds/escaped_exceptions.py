"""Keeps every exception inside the process.

Fault (Triton 2.51): the server can crash (SIGSEGV) on an exception that leaves a model's `execute`.
Does: answers with the error. If that fails, it sends the final flag. It raises nothing, and a worker's loop survives.
Test: `test_an_answer_that_fails_raises_nothing`,
    `test_out_of_memory_in_one_process_fails_its_jobs_and_no_others`
Delete when: an exception that leaves `execute` always becomes an error response.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress


def contain(fail: Callable[[], None], close: Callable[[], None]) -> None:
    """Call `fail`, and if that raises, `close`. Raises nothing, even without free memory."""
    try:
        fail()
    except Exception:
        with suppress(Exception):
            close()
