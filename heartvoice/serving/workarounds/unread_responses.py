"""How much the server process holds for its callers: requests that came in, and answers that were not read yet.

A stream's sender never waits for its reader: a song is finished at full speed, and what its caller has not read waits
in the server process, up to 92 MB for a song of four minutes, after its job has ended. Triton does not say how much
that is, so the process's own memory is looked at, and admission counts it.

For that, what is freed must leave the process at once: `ENVIRONMENT` lets glibc map every large block by itself. The
models' processes inherit it, where it would cost page faults at every large array; `restore_malloc_defaults` undoes it
there.
"""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path

from heartvoice.errors import ModelUnavailableError
from heartvoice.serving import process_registry

ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "1000000"}
"""Of the server process: bytes from which on a block has a mapping of its own."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGEST_THRESHOLD = 32 * 2**20
"""Where glibc's own adaptive threshold ends up in a process that has freed a block of that size."""


def restore_malloc_defaults() -> None:
    """Keep large blocks that were freed for the next ones, in this process."""
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_THRESHOLD)
    libc.mallopt(_M_TRIM_THRESHOLD, 2 * _LARGEST_THRESHOLD)


def private_bytes(pid: int) -> int:
    """Private memory of a process, without files and shared regions; 0 if it is gone or the kernel does not say."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"^RssAnon:\s*(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


class UnreadResponseLimit:
    """Refuses new jobs while the server process holds too much more than it did when the first one came."""

    def __init__(self, model: str, limit_mb: int) -> None:
        self._model, self._limit = model, limit_mb * 10**6
        self._server = os.getppid()
        self._base: int | None = None

    def check(self) -> None:
        """Look at the server's memory now: about 30 us.

        Raises:
            ModelUnavailableError: with the numbers.
        """
        now = private_bytes(self._server)
        if self._base is None:
            self._base = now
        held = now - self._base
        if held > self._limit:
            process_registry.report_full(self._base + self._limit)
            raise ModelUnavailableError(
                f"{self._model}: the server holds {held / 1e6:.0f} MB of requests and of answers that their callers "
                f"have not read, the limit is {self._limit / 1e6:.0f} MB; try again later"
            )
