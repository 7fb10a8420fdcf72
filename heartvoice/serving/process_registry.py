"""A run's folder: which process serves which model, whether it works, and whether the server is about to stop.

`heartvoice serve` makes the folder and names it in HEARTVOICE_RUN_DIR. A killed stub leaves its callers waiting for
ever (measured: docs/explanation/known-issues-triton-2.51.md), so callers look here whether it lives.
In a container without that variable nothing is known and every model counts as alive.
"""

from __future__ import annotations

# The stub imports asyncio after its first `execute`: without memory for that, the server dies with SIGSEGV (2.51).
import asyncio  # noqa: F401
import mmap
import os
import shutil
import struct
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

VARIABLE = "HEARTVOICE_RUN_DIR"
BEAT_S = 0.25
"""How often a stub's own thread looks at its parent and says that it works."""
DRAIN, STOP = "drain", "stop"
"""Flags of a server that is about to stop: no new jobs; and those under way end, too."""
FULL = "full"
"""Flag of a server that took a job too few, because it holds answers that nobody has read."""


def folder() -> Path | None:
    """The run's folder, if there is one."""
    value = os.environ.get(VARIABLE)
    return Path(value) if value else None


class Heartbeat:
    """A counter in a file that others read: it stands still when this process is stopped, or never lets go of its GIL.

    Mapped, so that counting needs no free space on the disk.
    """

    def __init__(self, path: Path) -> None:
        """Make the file; one that a dead process left is replaced."""
        temporary = path.with_suffix(".new")
        temporary.write_bytes(bytes(8))
        with temporary.open("r+b") as file:
            self._count = mmap.mmap(file.fileno(), 8)
        temporary.replace(path)

    def __call__(self) -> None:
        """Count."""
        struct.pack_into("<q", self._count, 0, struct.unpack_from("<q", self._count)[0] + 1)


def beats(model: str, run: Path) -> int | None:
    """How often the process of `model` has said that it works; None if that is not known."""
    try:
        count: int = struct.unpack("<q", (run / "beats" / model).read_bytes())[0]
        return count
    except (OSError, struct.error):
        return None


def _exit_with_parent(server_pid: int, beat: Heartbeat | None) -> None:
    while os.getppid() == server_pid:
        if beat is not None:
            beat()
        time.sleep(BEAT_S)
    os._exit(1)


def register(model: str) -> None:
    """Note that this process serves `model` and works, and let it end with its server.

    A stub that waits for a killed server in a call of its own would live on for ever.
    """
    run, beat = folder(), None
    if run:
        shutil.rmtree(run / "scratch" / model, ignore_errors=True)  # of a process that was killed
        for name in ("pids", "beats"):
            (run / name).mkdir(exist_ok=True)
        beat = Heartbeat(run / "beats" / model)
        path = run / "pids" / model
        temporary = path.with_suffix(".new")
        temporary.write_text(str(os.getpid()))
        temporary.replace(path)
    threading.Thread(target=_exit_with_parent, args=(os.getppid(), beat), name="live-with-server", daemon=True).start()


def forget(run: Path) -> None:
    """Drop what is known of a dead server."""
    for name in ("pids", "beats"):
        shutil.rmtree(run / name, ignore_errors=True)
    (run / FULL).unlink(missing_ok=True)


def report_full(n_bytes: int) -> None:
    """Note that jobs are refused while the server's process holds more than this."""
    run = folder()
    if run is not None:
        with suppress(OSError):  # the refusal counts, not the note
            (run / FULL).write_text(str(n_bytes))


def full(run: Path) -> int | None:
    """The bytes from which on the server's process holds too much; None if no job was refused for that."""
    try:
        return int((run / FULL).read_text())
    except (FileNotFoundError, ValueError):
        return None


def scratch(model: str) -> tempfile.TemporaryDirectory[str]:
    """A folder for a job's files, as a context manager. What a killed process leaves goes at its model's next start."""
    run = folder()
    parent = run / "scratch" / model if run else None
    if parent:
        parent.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(prefix=f"heartvoice-{model}-", dir=parent)


def serving_pid(model: str, run: Path | None = None) -> int | None:
    """The process that serves `model`, or last did."""
    run = run or folder()
    try:
        return int((run / "pids" / model).read_text()) if run else None
    except (FileNotFoundError, ValueError):
        return None


def _stat(pid: int) -> list[str]:
    """A process's state, parent and so on (proc(5), from field 3); empty if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def is_alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    fields = _stat(pid)
    return bool(fields) and fields[0] not in "ZX"


def parent(pid: int) -> int | None:
    """A process's parent."""
    fields = _stat(pid)
    return int(fields[1]) if fields else None


def model_alive(model: str) -> bool:
    """Whether the model's process lives; true where that cannot be known."""
    pid = serving_pid(model)
    return pid is None or is_alive(pid)


def flagged(flag: str) -> bool:
    """Whether `heartvoice serve` has raised a flag: DRAIN or STOP."""
    run = folder()
    return run is not None and (run / flag).exists()
