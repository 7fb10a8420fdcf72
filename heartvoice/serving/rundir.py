"""A run's folder: which process serves which model, and whether the server is about to stop.

`heartvoice serve` makes the folder and names it in HEARTVOICE_RUN_DIR. A killed stub leaves its callers waiting for
ever (measured: docs/architecture.md, "What the embedded server does not do"), so callers look here whether it lives.
In a container without that variable nothing is known and every model counts as alive.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

VARIABLE = "HEARTVOICE_RUN_DIR"
DRAIN, STOP = "drain", "stop"
"""Flags of a server that is about to stop: no new jobs; and those under way end, too."""


def folder() -> Path | None:
    """The run's folder, if there is one."""
    value = os.environ.get(VARIABLE)
    return Path(value) if value else None


def _leave_with(server_pid: int) -> None:
    while os.getppid() == server_pid:
        time.sleep(0.25)
    os._exit(1)


def register(model: str) -> None:
    """Note that this process serves `model`, and let it end with its server.

    A stub that waits for a killed server in a call of its own would live on for ever.
    """
    threading.Thread(target=_leave_with, args=(os.getppid(),), name="leave-with-server", daemon=True).start()
    run = folder()
    if run:
        path = run / "pids" / model
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_suffix(".new")
        temporary.write_text(str(os.getpid()))
        temporary.replace(path)


def serving_pid(model: str, run: Path | None = None) -> int | None:
    """The process that serves `model`, or last did."""
    run = run or folder()
    try:
        return int((run / "pids" / model).read_text()) if run else None
    except (FileNotFoundError, ValueError):
        return None


def is_alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state not in "ZX"


def model_alive(model: str) -> bool:
    """Whether the model's process lives; true where that cannot be known."""
    pid = serving_pid(model)
    return pid is None or is_alive(pid)


def flagged(flag: str) -> bool:
    """Whether `heartvoice serve` has raised a flag: DRAIN or STOP."""
    run = folder()
    return run is not None and (run / flag).exists()
