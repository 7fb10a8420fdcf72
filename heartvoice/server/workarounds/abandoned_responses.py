"""Finds a server that takes no jobs because of responses that nobody will read.

Fault (Triton 2.51): what a cancelled stream's caller had not read is never freed, and counts nowhere.
Does: if jobs are refused for that (`heartvoice.serving.workarounds.unread_responses`), and the server has had no job
    for two minutes, the supervisor restarts it.
Test: `test_what_others_left_unread_is_freed_where_it_keeps_the_server_from_work`
Delete when: Triton frees the unread responses of a cancelled stream.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from heartvoice.serving.workarounds.unread_responses import forget_full, full, private_bytes

UNREAD_S = 120.0
"""A caller that reads nothing for so long, while that keeps others from being served, loses what is unread."""


class AbandonedResponses:
    """Finds out when unread responses keep a server without jobs from taking any."""

    def __init__(
        self, run: Path, server_pid: int, live_jobs: Callable[[], int], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._run, self._server_pid, self._live_jobs, self._clock = run, server_pid, live_jobs, clock
        self._since: float | None = None

    def stuck(self) -> bool:
        """Return whether that has lasted for `UNREAD_S`. Cheap while no job is refused."""
        most = full(self._run)
        if most is None:
            return False
        if private_bytes(self._server_pid) <= most:
            forget_full(self._run)
            self._since = None
            return False
        if self._live_jobs():
            self._since = None
            return False
        if self._since is None:
            self._since = self._clock()
        return self._clock() - self._since >= UNREAD_S
