"""Keeps every exception inside the process.

Fault (Triton 2.51): an exception that leaves `execute` after its request's sender was used kills the server with
    SIGSEGV. (One that leaves a worker's loop would take the worker along.)
Does: answers with the error; if even that fails, sends the final flag; raises nothing.
Test: `test_an_answer_that_fails_raises_nothing`,
    `test_out_of_memory_in_one_process_fails_its_jobs_and_no_others`
Delete when: an exception that leaves `execute` becomes an error response, whatever was sent before.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress


def contain(fail: Callable[[], None], close: Callable[[], None]) -> None:
    """Call `fail`, and if that raises, `close`. Raises nothing, however little memory there is."""
    try:
        fail()
    except Exception:
        with suppress(Exception):
            close()
