"""How much the server process holds for its callers: requests that came in, and answers that were not read yet.

A stream's sender never waits for its reader: a song is finished at full speed, and what its caller has not read waits
in the server process, up to 92 MB for a song of four minutes, after its job has ended. Triton does not say how much
that is, so the process's own memory is looked at, and admission counts it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from heartvoice.errors import ModelUnavailableError


def private_bytes(pid: int) -> int:
    """Private memory of a process, without files and shared regions; 0 if it is gone or the kernel does not say."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"^RssAnon:\s*(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


class UnreadLimit:
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
            raise ModelUnavailableError(
                f"{self._model}: the server holds {held / 1e6:.0f} MB of requests and of answers that their callers "
                f"have not read, the limit is {self._limit / 1e6:.0f} MB; try again later"
            )
