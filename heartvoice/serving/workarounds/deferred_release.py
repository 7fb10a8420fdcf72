"""Keeps finished response iterators until Triton's stub has dropped its own reference.

Fault (Triton 2.51): the stub lists every response iterator and drops it in a thread that does not hold the
    interpreter's lock (`~ResponseIterator` under `Stub::SendCleanupId`). If that was the last reference, the iterator's
    arrays are freed while Python runs; two objects then share memory, and the process fails in impossible ways.
Does: holds the last reference itself. The same thread answers `is_cancelled`, in the order of the calls, so an answer
    to a question that was asked after an iterator had ended shows that the stub has dropped it.
Test: `test_only_what_had_ended_before_the_question_is_freed`, `test_songs_and_covers_leave_the_allocator_intact`
Delete when: the stub takes the interpreter's lock before it drops a response iterator.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any

KEEP_S = 60.0
"""Without a job there is no question to ask. Dropping takes microseconds, and a stub that hangs is killed."""


class DeferredRelease:
    """Finished iterators, in the order in which they ended. Safe in all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: deque[tuple[int, float, Any]] = deque()
        self._count = 0

    def hold(self, stream: Any) -> None:
        """Keep an iterator that has ended."""
        with self._lock:
            self._count += 1
            self._kept.append((self._count, time.monotonic(), stream))

    def checkpoint(self) -> int:
        """Return a mark to take before a question: what is kept by now."""
        with self._lock:
            return self._count

    def release(self, checkpoint: int) -> None:
        """Free what was kept before an answered question's checkpoint, and what is older than `KEEP_S`."""
        old = time.monotonic() - KEEP_S
        freed = []
        with self._lock:
            while self._kept and (self._kept[0][0] <= checkpoint or self._kept[0][1] < old):
                freed.append(self._kept.popleft())
        freed.clear()  # not under the lock: a song's arrays are many


FINISHED_STREAMS = DeferredRelease()
"""Of this process, because the stub has one list for all jobs."""
