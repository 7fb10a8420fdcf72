"""The live jobs of each model's process, where the supervisor finds them if the process dies."""

from __future__ import annotations

import json
import mmap
import struct
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

_FOLDER = "live"
_BYTES = 65_536
_HEAD = struct.Struct("<qq")
"""Number of jobs, and bytes of the list that follows."""
Named = tuple[str, float]
"""The caller's name of a job, and the time when it came in seconds since 1970."""


class LiveJobs:
    """The live jobs of one process. The file is mapped, so that a change needs no free disk space."""

    def __init__(self, model: str, run: Path) -> None:
        """Create the file, and replace a dead process's file."""
        path = run / _FOLDER / model
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_suffix(".new")
        temporary.write_bytes(bytes(_BYTES))
        with temporary.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _BYTES)
        temporary.replace(path)

    def set(self, n_jobs: int, named: Sequence[Named]) -> None:
        """Record the number of all jobs, and the jobs of callers from outside."""
        text = json.dumps(named).encode()
        if len(text) > _BYTES - _HEAD.size:
            text = b"[]"
        self._map[: _HEAD.size + len(text)] = _HEAD.pack(n_jobs, len(text)) + text


class LiveCount:
    """The number of live jobs of a model's present process, readable also when another one has taken its place."""

    def __init__(self, model: str, run: Path) -> None:
        self._file: BinaryIO | None = None
        with suppress(FileNotFoundError):  # a native graph's process has no jobs of its own
            self._file = (run / _FOLDER / model).open("rb", buffering=0)

    def read(self) -> int:
        """Return the number; 0 of a process that reports none."""
        if self._file is None:
            return 0
        self._file.seek(0)
        head = self._file.read(_HEAD.size)
        return int(_HEAD.unpack(head)[0]) if len(head) == _HEAD.size else 0

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def read_live(model: str, run: Path) -> tuple[int, list[Named]]:
    """Return the number of a process's live jobs, and those of callers from outside."""
    try:
        content = (run / _FOLDER / model).read_bytes()
        n_jobs, size = _HEAD.unpack_from(content)
    except (OSError, struct.error):
        return 0, []
    try:
        named = [(str(name), float(began)) for name, began in json.loads(content[_HEAD.size : _HEAD.size + size])]
    except ValueError:  # the process died while it wrote
        named = []
    return int(n_jobs), named
