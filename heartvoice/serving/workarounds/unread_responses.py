"""Refuses new jobs while unread responses take too much memory of the server.

Fault (Triton 2.51): the server process keeps unread responses of streams without a limit (up to 92 MB for a song of
    four minutes, after its job has ended) and does not report them. It can keep those of cancelled streams for ever.
Does: refuses new jobs while the server process has too much private memory, and records that in the run's folder for
    `heartvoice.server.workarounds.abandoned_responses`. Freed memory must leave the process at once for that, so
    `ENVIRONMENT` gives every large block of the server its own mapping. Models' processes inherit the setting, where
    it would cost page faults at every large array; `restore_malloc_defaults` undoes it there. They also inherit that
    there is one arena, which must hold before Triton's stub starts its first thread.
Test: `test_one_stalled_client_among_eight_delays_nobody_and_is_counted`
Delete when: Triton limits or reports the responses that wait to be read.
"""

from __future__ import annotations

import ctypes
import os
import re
from contextlib import suppress
from pathlib import Path

from heartvoice.errors import ModelUnavailableError
from heartvoice.serving import process_registry

ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "1000000", "MALLOC_ARENA_MAX": "1"}
"""glibc settings of the server process: a block of at least so many bytes gets its own mapping, and all threads share
one arena. glibc gives the free end of any other back to the system only above the trim threshold, not when it is asked
to (`heartvoice.serving.idle_memory`): after a cover of two minutes a server of `tiny` keeps 818 MB, and 1218 MB with
glibc's own number of arenas (`benchmarks/memory.py`)."""
FULL = "full"
"""File in the run's folder with the limit in bytes at which a job was refused."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGEST_THRESHOLD = 32 * 2**20
"""Final value of glibc's adaptive threshold in a process that has freed a block of that size."""


def restore_malloc_defaults() -> None:
    """Let this process reuse large freed blocks."""
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_THRESHOLD)
    libc.mallopt(_M_TRIM_THRESHOLD, 2 * _LARGEST_THRESHOLD)


def private_bytes(pid: int) -> int:
    """Return a process's private memory in bytes, without files and shared regions; 0 if it is unknown."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"^RssAnon:\s*(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


class UnreadResponseLimit:
    """Refuses jobs while the server's memory has grown too much since the first job."""

    def __init__(self, model: str, limit_mb: int) -> None:
        self._model, self._limit = model, limit_mb * 10**6
        self._server = os.getppid()
        self._base: int | None = None

    def check(self) -> None:
        """Check the server's memory now, which takes about 30 us.

        Raises:
            ModelUnavailableError: with the numbers.
        """
        now = private_bytes(self._server)
        if self._base is None:
            self._base = now
        held = now - self._base
        if held > self._limit:
            report_full(self._base + self._limit)
            raise ModelUnavailableError(
                f"{self._model}: the server holds {held / 1e6:.0f} MB of requests and of answers that their callers "
                f"have not read, the limit is {self._limit / 1e6:.0f} MB; try again later"
            )


def report_full(n_bytes: int) -> None:
    """Record in the run's folder that jobs are refused above `n_bytes` of the server process."""
    run = process_registry.folder()
    if run is not None:
        with suppress(OSError):  # the refusal matters, not the record
            (run / FULL).write_text(str(n_bytes))


def full(run: Path) -> int | None:
    """Return the recorded limit in bytes; None if no job was refused."""
    try:
        return int((run / FULL).read_text())
    except (FileNotFoundError, ValueError):
        return None


def forget_full(run: Path) -> None:
    """Remove the record."""
    (run / FULL).unlink(missing_ok=True)
