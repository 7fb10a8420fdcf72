"""Restarts a server that crashed, but not too often.

Fault (Triton 2.51): the death of a model's process can abort the server (SIGABRT).
Does: the supervisor restarts a server that crashed, at most three times in ten minutes. Deliberate kills (SIGTERM,
    SIGKILL) and stops are not restarted.
Test: `test_a_server_that_crashes_in_the_middle_of_a_song_serves_the_next`, `test_one_that_crashes_too_often_stays_down`
Delete when: no model's process can end the server.
"""

from __future__ import annotations

import time

from heartvoice.server.processes import crashed

MAX_CRASHES, PERIOD_S = 3, 600.0
"""Number of restarts within this many seconds; a server that crashes more often stays down."""


class CrashCount:
    """Counts the crashes of one run."""

    def __init__(self) -> None:
        self._times: list[float] = []

    def may_restart(self, status: int | None) -> bool:
        """Count the end of a server and return whether it may be restarted.

        Args:
            status: exit status of the process, as `subprocess` gives it.
        """
        now = time.monotonic()
        self._times = [*(at for at in self._times if now - at < PERIOD_S), now]
        return crashed(status) and len(self._times) <= MAX_CRASHES
