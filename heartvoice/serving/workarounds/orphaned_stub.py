"""Ends a model's process when its server has died.

Fault (Triton 2.51): a stub with a call in progress can outlive its server.
Does: a thread polls the parent process and ends this process when the parent changes. Each poll also calls `alive`, the
    heartbeat. `heartvoice.server.workarounds.orphaned_stubs` kills a stub in which this thread cannot run.
Test: `test_a_killed_server_leaves_nothing_after_the_next_start`
Delete when: stubs end with their server.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

POLL_S = 0.25
"""Seconds between a stub's polls of its parent and its heartbeats."""


def exit_with_parent(alive: Callable[[], None]) -> None:
    """Start the thread.

    Args:
        alive: called at each poll.
    """
    threading.Thread(target=_watch, args=(os.getppid(), alive), name="live-with-server", daemon=True).start()


def _watch(server_pid: int, alive: Callable[[], None]) -> None:
    while os.getppid() == server_pid:
        alive()
        time.sleep(POLL_S)
    os._exit(1)
