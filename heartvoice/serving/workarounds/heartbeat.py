"""A counter by which a model's process shows that it runs.

Fault (Triton 2.51): a stopped or stuck stub is called unhealthy after a second and stays so for ever; the call under
    way never returns, and the server does nothing about it.
Does: a thread counts in a mapped file of the run's folder. The count stands still when the process is stopped, or when
    a call holds Python's lock; `heartvoice.server.workarounds.dead_stubs` kills such a process.
Test: `test_beats_are_read_by_others_and_start_anew_with_a_new_process`, `test_a_process_that_stops_counting_hangs`
Delete when: Triton restarts models whose process hangs.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

_FOLDER = "beats"


class Heartbeat:
    """The counter of one process. Mapped, so that counting needs no free space on the disk."""

    def __init__(self, model: str, run: Path) -> None:
        """Make the file; one that a dead process left is replaced."""
        path = run / _FOLDER / model
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_suffix(".new")
        temporary.write_bytes(bytes(8))
        with temporary.open("r+b") as file:
            self._count = mmap.mmap(file.fileno(), 8)
        temporary.replace(path)

    def __call__(self) -> None:
        """Count."""
        struct.pack_into("<q", self._count, 0, struct.unpack_from("<q", self._count)[0] + 1)


def beats(model: str, run: Path) -> int | None:
    """Return the count of a model's process; None if it has none."""
    try:
        count: int = struct.unpack("<q", (run / _FOLDER / model).read_bytes())[0]
        return count
    except (OSError, struct.error):
        return None
