"""A heartbeat counter of a model's process.

Fault (Triton 2.51): a stub that did not respond for a second stays unhealthy, its call never returns, and the server
    does not recover it.
Does: a thread counts in a mapped file of the run's folder. The count stops when the process is stopped or when a call
    holds Python's lock; `heartvoice.server.workarounds.dead_stubs` kills such a process.
Test: `test_beats_are_read_by_others_and_start_anew_with_a_new_process`, `test_a_process_that_stops_counting_hangs`
Delete when: Triton restarts a model whose process hangs.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

_FOLDER = "beats"


class Heartbeat:
    """The counter of one process. It is mapped, so that counting needs no free disk space."""

    def __init__(self, model: str, run: Path) -> None:
        """Create the file, and replace a dead process's file."""
        path = run / _FOLDER / model
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_suffix(".new")
        temporary.write_bytes(bytes(8))
        with temporary.open("r+b") as file:
            self._count = mmap.mmap(file.fileno(), 8)
        temporary.replace(path)

    def __call__(self) -> None:
        """Increment the counter."""
        struct.pack_into("<q", self._count, 0, struct.unpack_from("<q", self._count)[0] + 1)


def beats(model: str, run: Path) -> int | None:
    """Return the count of a model's process; None without a counter."""
    try:
        count: int = struct.unpack("<q", (run / _FOLDER / model).read_bytes())[0]
        return count
    except (OSError, struct.error):
        return None
