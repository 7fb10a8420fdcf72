"""The run's folder: each model's process, its jobs' files, and the flags of a stopping server.

`heartvoice serve` creates the folder and names it in HEARTVOICE_RUN_DIR. In a container without that variable there is
no information, and every model counts as alive.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from heartvoice.serving.workarounds import early_asyncio  # noqa: F401
from heartvoice.serving.workarounds.heartbeat import Heartbeat
from heartvoice.serving.workarounds.orphaned_stub import exit_with_parent

VARIABLE = "HEARTVOICE_RUN_DIR"
DRAIN, STOP = "drain", "stop"
"""Flags of a stopping server: DRAIN refuses new jobs, STOP ends the jobs in progress."""


def folder() -> Path | None:
    """Return the run's folder, or None."""
    value = os.environ.get(VARIABLE)
    return Path(value) if value else None


def register(model: str) -> None:
    """Register this process for `model`, start its heartbeat, and end it with its server."""
    run = folder()
    alive: Callable[[], None] = _no_beat
    if run:
        shutil.rmtree(run / "scratch" / model, ignore_errors=True)  # files of a killed process
        alive = Heartbeat(model, run)
        path = run / "pids" / model
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_suffix(".new")
        temporary.write_text(str(os.getpid()))
        temporary.replace(path)
    exit_with_parent(alive)


def _no_beat() -> None:
    """Do nothing: without a run's folder, no process reads a heartbeat."""


def forget(run: Path) -> None:
    """Remove the files of a dead server."""
    for name in ("pids", "beats"):
        shutil.rmtree(run / name, ignore_errors=True)


def scratch(model: str) -> tempfile.TemporaryDirectory[str]:
    """Make a folder for a job's files, as a context manager.

    Files left by a killed process are removed at its model's next start.
    """
    run = folder()
    parent = run / "scratch" / model if run else None
    if parent:
        parent.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(prefix=f"heartvoice-{model}-", dir=parent)


def serving_pid(model: str, run: Path | None = None) -> int | None:
    """Return the current or last process of `model`."""
    run = run or folder()
    try:
        return int((run / "pids" / model).read_text()) if run else None
    except (FileNotFoundError, ValueError):
        return None


def stat(pid: int) -> list[str]:
    """Return a process's state, parent and so on (proc(5), from field 3); empty if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def is_alive(pid: int) -> bool:
    """Return whether a process exists and is no zombie."""
    fields = stat(pid)
    return bool(fields) and fields[0] not in "ZX"


def parent(pid: int) -> int | None:
    """Return a process's parent, or None."""
    fields = stat(pid)
    return int(fields[1]) if fields else None


def model_alive(model: str) -> bool:
    """Return whether the model's process lives; true where that is unknown."""
    pid = serving_pid(model)
    return pid is None or is_alive(pid)


def flagged(flag: str) -> bool:
    """Return whether `heartvoice serve` has raised the flag DRAIN or STOP."""
    run = folder()
    return run is not None and (run / flag).exists()
