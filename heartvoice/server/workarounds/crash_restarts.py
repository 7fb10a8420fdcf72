"""Restarts a server that crashed or hung, but not too often.

Fault (Triton 2.51): the death of a model's process can abort the server (SIGABRT).
Does: the supervisor restarts a server that crashed, or that it killed itself because it hung, at most three times in
    ten minutes. An operator's kills (SIGTERM, SIGKILL) and stops are not followed by a restart.
Test: `test_a_server_that_crashes_in_the_middle_of_a_song_serves_the_next`, `test_one_that_crashes_too_often_stays_down`
Delete when: no model's process can end the server.
"""

from __future__ import annotations

import time

from heartvoice.server.processes import crashed

MAX_CRASHES, PERIOD_S = 3, 600.0
"""Number of restarts within this many seconds; a server that crashes more often stays down."""


class CrashCount:
    """Counts the crashes and hangs of one run."""

    def __init__(self) -> None:
        self._times: list[float] = []

    def may_restart(self, status: int | None, *, hung: bool = False) -> bool:
        """Count the end of a server and return whether it may be restarted.

        Args:
            status: exit status of the process, as `subprocess` gives it.
            hung: true if the supervisor killed it because it gave no sign of life.
        """
        now = time.monotonic()
        self._times = [*(at for at in self._times if now - at < PERIOD_S), now]
        return (hung or crashed(status)) and len(self._times) <= MAX_CRASHES
