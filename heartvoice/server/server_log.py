"""Reads the reason of a failure from a server's log."""

from __future__ import annotations

from collections import deque
from pathlib import Path


def reason(log_path: Path, start: int) -> str:
    """Return the last lines of the log, from byte `start` on, that name an error."""
    lines: deque[str] = deque(maxlen=400)
    with log_path.open(encoding="utf-8", errors="replace") as file:
        file.seek(start)
        lines.extend(line.strip() for line in file)
    telling = [line for line in lines if "Error" in line or "UNAVAILABLE" in line or "failed" in line]
    harmless = ("NVML", "pinned", "CudaDriverHelper", "DCGM")
    telling = [line for line in telling if not any(word in line for word in harmless)]
    return " | ".join((telling or list(lines))[-4:]) or "it logged nothing"
