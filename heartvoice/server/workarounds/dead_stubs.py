"""Finds models whose process died or hangs, so that the supervisor reloads them.

Fault (Triton 2.51): the server never restarts a dead or hanging stub, and the model of a dead stub stays "ready".
Does: compares each model's pid and heartbeat in the run's folder with the system's processes; the supervisor kills a
    process that hangs, unloads its model and loads it again.
Test: `test_a_process_that_stops_counting_hangs`, `test_a_killed_process_fails_its_own_jobs_by_name_and_no_others`
Delete when: Triton restarts a model's dead or hanging process.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from heartvoice.serving import process_registry
from heartvoice.serving.workarounds.heartbeat import beats

DIED = "died"
RETRY_S, MAX_RETRY_S = 0.5, 30.0
"""Seconds to wait after a failed reload, doubled each time up to the second number."""


@dataclass
class _Seen:
    """The last observation of one model's process."""

    pid: int
    count: int | None
    since: float
    """Time of the count's last change."""


class StubHealth:
    """Finds stubs of one run that are dead, stopped, or stuck with Python's lock held."""

    def __init__(
        self, run: Path, server_pid: int, hang_s: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Prepare.

        Args:
            run: the run's folder.
            server_pid: the server's process.
            hang_s: a process without a heartbeat for so many seconds hangs.
            clock: monotonic time in seconds.
        """
        self._run, self._server_pid, self._hang_s, self._clock = run, server_pid, hang_s, clock
        self._seen: dict[str, _Seen] = {}
        self._retries: dict[str, tuple[float, float]] = {}  # last wait, and the time of its end

    def diagnose(self, name: str, pid: int) -> str | None:
        """Describe the fault of a model's process; None without a fault, or if the next try is not due."""
        now = self._clock()
        # The system may give a dead stub's pid to another process, so the parent must be ours.
        works = process_registry.is_alive(pid) and process_registry.parent(pid) == self._server_pid
        found = self._silence(name, pid, now) if works else DIED
        if found is None:
            self._retries.pop(name, None)
            return None
        return found if now >= self._retries.get(name, (0.0, now))[1] else None

    def _silence(self, name: str, pid: int, now: float) -> str | None:
        count, seen = beats(name, self._run), self._seen.get(name)
        if seen is None or (seen.pid, seen.count) != (pid, count):
            self._seen[name] = _Seen(pid, count, now)
            return None
        silent_s = now - seen.since
        return f"gave no sign of life for {silent_s:.0f} s" if count is not None and silent_s > self._hang_s else None

    def failed(self, name: str) -> float:
        """Record a failed reload and return the seconds until the next try."""
        wait_s = min(2 * self._retries.get(name, (RETRY_S / 2, 0.0))[0], MAX_RETRY_S)
        self._retries[name] = (wait_s, self._clock() + wait_s)
        return wait_s
