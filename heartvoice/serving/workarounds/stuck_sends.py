"""Jobs whose thread is stuck in a send give their place to a new thread.

Fault (Triton 2.51): a send to a calling model whose process was killed never returns.
Does: a job that has to end, and whose send takes far longer than a send takes, is abandoned together with its thread.
    Answers to jobs that still wait are sent by threads of their own, so that the watcher never blocks.
Test: `test_a_job_stuck_in_a_send_gives_its_place_to_another`,
    `test_a_killed_orchestrator_frees_its_children_and_fails_its_caller`
Delete when: a send to a killed process fails or returns.
"""

from __future__ import annotations

import logging
import threading
from typing import Protocol

log = logging.getLogger(__name__)

STUCK_S = 1.0
"""A send takes milliseconds. One that takes so long, in a job that has to end, will not return."""


class _Job(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def sending_s(self) -> float: ...
    def cancelled(self) -> bool: ...
    def fail_safely(self, error: BaseException) -> None: ...


class StuckSends:
    """The jobs of one queue that were abandoned."""

    def __init__(self) -> None:
        self._abandoned: set[object] = set()

    def abandon_if_stuck(self, job: _Job) -> bool:
        """Return whether the job is stuck; then its worker's place is free."""
        if not job.cancelled() or job.sending_s <= STUCK_S:
            return False
        log.warning("%s: a job's caller was killed during a response; its thread is left behind", job.name)
        self._abandoned.add(job)
        return True

    def is_abandoned(self, job: object) -> bool:
        """Return whether the job was abandoned: the thread that comes back from it must end."""
        return job in self._abandoned


def fail_in_thread(job: _Job, error: BaseException) -> None:
    """Answer with an error from a new thread, because the send may never return."""
    threading.Thread(target=job.fail_safely, args=(error,), name=f"{job.name}-drop", daemon=True).start()
