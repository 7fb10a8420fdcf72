"""Ends a model's process without taking its interpreter apart.

Fault (Triton 2.51): at a stop the server waits until the interpreter of every model's process was taken apart. With all
    models that are seconds of processor time: 4 s on two idle cores, more than 12 s on busy ones.
Does: ends the process when the interpreter's exit begins. The model was finalized then, and its messages were sent.
Test: `test_a_models_process_ends_when_its_interpreter_begins_to_exit`
Delete when: Triton stops all models within a second.
"""

from __future__ import annotations

import atexit
import os


def arrange() -> None:
    """Have this process end as soon as its interpreter begins to exit."""
    atexit.register(_leave)


def _leave() -> None:
    atexit.unregister(_leave)
    atexit._run_exitfuncs()  # those that were registered before, which would come later
    os._exit(0)
