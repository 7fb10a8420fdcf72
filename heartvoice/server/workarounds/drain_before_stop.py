"""Waits until no job is live before the server is stopped.

Fault (Triton 2.51): after SIGTERM the server refuses the inner calls of songs, so songs in progress cannot finish.
Does: the supervisor raises a flag that refuses new jobs, waits here, and sends SIGTERM afterwards.
Test: `test_stop_may_let_songs_finish`
Delete when: Triton accepts inner calls of requests in progress after SIGTERM.
"""

from __future__ import annotations

import time
from collections.abc import Callable

POLL_S = 0.05


def wait_until_idle(live_jobs: Callable[[], int], timeout_s: float, interrupted: Callable[[], bool]) -> None:
    """Wait until there is no live job, for at most `timeout_s` seconds or until `interrupted` is true."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and not interrupted() and live_jobs() > 0:
        time.sleep(POLL_S)
