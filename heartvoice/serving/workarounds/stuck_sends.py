"""Replaces the thread of a job that is stuck in a send.

Fault (Triton 2.51): a send to a calling model can hang after the death of the caller's process.
Does: abandons an ending job together with its thread if its send takes far longer than a send normally takes. Answers
    to jobs that still wait are sent by separate threads, so that the watcher never blocks.
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
"""A send takes milliseconds. In a job that must end, a send of so many seconds will not return."""


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
        """Return whether the job is stuck; its worker is then replaced."""
        if not job.cancelled() or job.sending_s <= STUCK_S:
            return False
        log.warning("%s: a job's caller was killed during a response; its thread is left behind", job.name)
        self._abandoned.add(job)
        return True

    def is_abandoned(self, job: object) -> bool:
        """Return whether the job was abandoned; a thread that returns from it must end."""
        return job in self._abandoned


def fail_in_thread(job: _Job, error: BaseException) -> None:
    """Answer with an error from a new thread, because the send may never return."""
    threading.Thread(target=job.fail_safely, args=(error,), name=f"{job.name}-drop", daemon=True).start()
