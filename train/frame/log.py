"""The log of a training: one JSON line an entry, and progress for whoever looks on."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from train.frame.state import LOG

_DIGITS = 5


class Log:
    """The file `log.jsonl` of a state's folder, and lines to stderr."""

    def __init__(self, folder: Path, keep_bytes: int) -> None:
        """Open the log behind its first `keep_bytes`; later lines are of steps that the state does not have."""
        self._file = (folder / LOG).open("ab")
        self._file.truncate(keep_bytes)

    def write(self, event: str, step: int, values: Mapping[str, Any]) -> None:
        """Add an entry."""
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        entry = {"time": now, "event": event, "step": step, **{name: _short(value) for name, value in values.items()}}
        self._file.write(json.dumps(entry).encode() + b"\n")
        self._file.flush()

    def size(self) -> int:
        """Return the length in bytes."""
        return self._file.tell()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def say(text: str) -> None:
    """Write a line to stderr."""
    print(text, file=sys.stderr, flush=True)


def describe(values: Mapping[str, float]) -> str:
    """Return numbers by name in one line."""
    return "  ".join(f"{name} {value:.4g}" for name, value in values.items())


def duration(seconds: float) -> str:
    """Return a duration in the largest unit that leaves at least two of it."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def _short(value: Any) -> Any:
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value
