"""Keeps finished response iterators until Triton's stub has dropped its own reference.

Fault (Triton 2.51): the stub drops its reference to a response iterator in a thread without the interpreter's lock
    (`~ResponseIterator` under `Stub::SendCleanupId`). If it is the last reference, the process's memory is corrupted.
Does: holds the last reference itself. The same thread answers `is_cancelled` in the order of the calls. An answer to a
    call made after an iterator had ended therefore shows that the stub has dropped the iterator.
Test: `test_only_what_had_ended_before_the_question_is_freed`, `test_songs_and_covers_leave_the_allocator_intact`
Delete when: the stub takes the interpreter's lock before it drops a response iterator.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any

KEEP_S = 60.0
"""Without a job there is no call to wait for. The drop takes microseconds, and a hanging stub is killed."""


class DeferredRelease:
    """Finished iterators in the order of their ends. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: deque[tuple[int, float, Any]] = deque()
        self._count = 0

    def hold(self, stream: Any) -> None:
        """Keep a finished iterator."""
        with self._lock:
            self._count += 1
            self._kept.append((self._count, time.monotonic(), stream))

    def checkpoint(self) -> int:
        """Return a mark of the iterators kept so far, to take before a call."""
        with self._lock:
            return self._count

    def release(self, checkpoint: int) -> None:
        """Free iterators kept before an answered call's checkpoint, and those older than `KEEP_S`."""
        old = time.monotonic() - KEEP_S
        freed = []
        with self._lock:
            while self._kept and (self._kept[0][0] <= checkpoint or self._kept[0][1] < old):
                freed.append(self._kept.popleft())
        freed.clear()  # outside of the lock, because a song has many arrays


FINISHED_STREAMS = DeferredRelease()
"""One per process, because the stub has one list for all jobs."""
