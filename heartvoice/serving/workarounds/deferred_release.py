"""What a finished stream of answers leaves behind, kept until Triton's stub has let go of it.

The stub lists every stream of answers from another model, and strikes it off in a thread of its own that does not hold
the interpreter's lock. If ours was not the last reference, that thread frees the stream with all its arrays while
Python runs (2.51: `~ResponseIterator` under `Stub::SendCleanupId`); sooner or later two objects share their memory, and
the process fails in impossible ways. So our reference has to be the last one.

When is it? The same thread answers the question whether a request was cancelled, in the order in which both were
asked. A question that was asked after a stream had ended, and answered, says that the stream is off the list.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any

KEEP_S = 60.0
"""Without a job there is no question to ask. Striking off takes microseconds; a stub that stands still is killed."""


class DeferredRelease:
    """Finished streams, in the order in which they ended. Safe in all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: deque[tuple[int, float, Any]] = deque()
        self._count = 0

    def hold(self, stream: Any) -> None:
        """Take over a stream that has ended; the caller drops its own reference first or last, as it likes."""
        with self._lock:
            self._count += 1
            self._kept.append((self._count, time.monotonic(), stream))

    def checkpoint(self) -> int:
        """To be taken before the question: what is kept by now."""
        with self._lock:
            return self._count

    def release(self, checkpoint: int) -> None:
        """The question was answered: free what was kept before it, and what nobody asked about for `KEEP_S`."""
        old = time.monotonic() - KEEP_S
        freed = []
        with self._lock:
            while self._kept and (self._kept[0][0] <= checkpoint or self._kept[0][1] < old):
                freed.append(self._kept.popleft())
        freed.clear()  # not under the lock: a song's arrays are many


FINISHED_STREAMS = DeferredRelease()
"""Of this process: the stub's list is one for all jobs."""
