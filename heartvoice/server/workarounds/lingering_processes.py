"""Ends the processes of unloaded models that Triton leaves running.

Fault (Triton 2.51): after the process of a model was killed in the middle of another model's call, Triton keeps a
    request of the caller for ever. It never finishes a later unload of the caller: its process idles, keeps its memory,
    and a stop waits for it.
Does: watches each process whose model is being unloaded, by the supervisor or by an admin call, and kills it when it
    has had no job for `LINGER_S`. The supervisor then loads a model that nobody has loaded again.
Test: `test_a_caller_of_a_killed_model_can_be_unloaded`, `test_a_process_that_lingers_without_jobs_is_killed`
Delete when: an unload ends after a callee of the model was killed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from heartvoice.serving import process_registry
from heartvoice.serving.live_jobs import LiveCount

log = logging.getLogger(__name__)

LINGER_S = 5.0
"""Seconds without a job after which the process of an unloaded model should have ended; it takes about 1.5 s."""


@dataclass
class _Retired:
    """A process whose model is being unloaded."""

    name: str
    jobs: LiveCount
    since: float
    """Since when it has had no job."""


class LingeringProcesses:
    """The processes of one run's unloaded models. Thread-safe: `unloading` may come from another thread."""

    def __init__(self, run: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._run, self._clock = run, clock
        self._retired: dict[int, _Retired] = {}

    def unloading(self, name: str) -> None:
        """Watch the model's present process from now on. Call it before another one takes its place."""
        pid = process_registry.serving_pid(name, self._run)
        if pid is not None and pid not in self._retired and process_registry.is_alive(pid):
            self._retired[pid] = _Retired(name, LiveCount(name, self._run), self._clock())

    def kill(self) -> None:
        """Kill the processes that linger, and forget those that have ended."""
        now = self._clock()
        for pid, retired in list(self._retired.items()):
            if not process_registry.is_alive(pid):
                retired.jobs.close()
                del self._retired[pid]
            elif retired.jobs.read():
                retired.since = now
            elif now - retired.since > LINGER_S:
                log.warning(
                    "the process of %s (pid %d) did not end within %g s after its model was unloaded and is killed",
                    retired.name, pid, LINGER_S,
                )  # fmt: skip
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
