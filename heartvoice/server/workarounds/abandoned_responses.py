"""Detects a server that refuses jobs because of abandoned responses.

Fault (Triton 2.51): the server can keep the unread responses of cancelled streams for ever.
Does: the supervisor restarts a server that refuses jobs for that reason
    (`heartvoice.serving.workarounds.unread_responses`) and has had no job for two minutes.
Test: `test_a_server_that_unread_answers_keep_from_work_is_started_anew`
Delete when: Triton frees the unread responses of a cancelled stream.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from heartvoice.serving.workarounds.unread_responses import forget_full, full, private_bytes

UNREAD_S = 120.0
"""Seconds after which a caller that blocks others loses its unread responses."""


class AbandonedResponses:
    """Detects that unread responses keep an idle server from accepting jobs."""

    def __init__(
        self, run: Path, server_pid: int, live_jobs: Callable[[], int], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._run, self._server_pid, self._live_jobs, self._clock = run, server_pid, live_jobs, clock
        self._since: float | None = None

    def stuck(self) -> bool:
        """Return whether the server has been blocked for `UNREAD_S`. Cheap while no job is refused."""
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
