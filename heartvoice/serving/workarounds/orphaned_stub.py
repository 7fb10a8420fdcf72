"""A model's process ends when its server has died.

Fault (Triton 2.51): a stub with a call under way waits for a killed server for ever.
Does: a thread looks at the parent process and ends this one when it changes. Each look also calls `alive`, which is how
    the process shows that it runs. (A stub that holds Python's lock in such a call is killed by `serve` or its next
    start: `heartvoice.server.workarounds.orphaned_stubs`.)
Test: `test_a_killed_server_leaves_nothing_after_the_next_start`
Delete when: stubs end with their server.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

POLL_S = 0.25
"""How often a stub looks at its parent and says that it runs."""


def exit_with_parent(alive: Callable[[], None]) -> None:
    """Start the thread.

    Args:
        alive: called at each look.
    """
    threading.Thread(target=_watch, args=(os.getppid(), alive), name="live-with-server", daemon=True).start()


def _watch(server_pid: int, alive: Callable[[], None]) -> None:
    while os.getppid() == server_pid:
        alive()
        time.sleep(POLL_S)
    os._exit(1)
