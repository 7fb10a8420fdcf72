"""Run folders and shared memory of servers that died without cleaning up."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from pathlib import Path

SHM = Path("/dev/shm")
PREFIX = "heartvoice_"
_RUN_PREFIX = "heartvoice-run-"


def identity(pid: int) -> str:
    """A process's name for ever: its pid and when it started, in clock ticks since boot; "" if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else f"{pid}_{fields[19]}"


def shm_prefix(owner: str) -> str:
    """The prefix of the shared-memory regions of one run."""
    return f"{PREFIX}{owner}_"


def new_run_folder() -> Path:
    """A private folder for this process's run, marked with its owner."""
    folder = Path(tempfile.mkdtemp(prefix=_RUN_PREFIX))
    (folder / "owner").write_text(identity(os.getpid()))
    return folder


def remove_run(folder: Path, owner: str) -> int:
    """Remove a run's processes, folder and shared memory; returns how many regions were left."""
    for pid_file in (folder / "pids").glob("*"):
        pid = pid_file.read_text()
        # A stub that waits for a killed server lives on. Its command line names the folder: no other process is hit.
        if pid.isdigit() and str(folder) in _command_line(int(pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
    regions = list(SHM.glob(f"{shm_prefix(owner)}*"))
    for region in regions:
        region.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    return len(regions)


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def _is_dead(owner: str) -> bool:
    pid = owner.partition("_")[0]
    return not pid.isdigit() or identity(int(pid)) != owner


def remove_stale() -> int:
    """Remove what dead runs of this user left; returns how many shared-memory regions that were."""
    n_regions = 0
    for folder in Path(tempfile.gettempdir()).glob(f"{_RUN_PREFIX}*"):
        marker = folder / "owner"
        owner = marker.read_text() if marker.is_file() else ""
        if folder.stat().st_uid == os.getuid() and owner and _is_dead(owner):
            n_regions += remove_run(folder, owner)
    for region in SHM.glob(f"{PREFIX}*"):
        owner = "_".join(region.name.removeprefix(PREFIX).split("_")[:2])
        if region.stat().st_uid == os.getuid() and _is_dead(owner):
            region.unlink(missing_ok=True)
            n_regions += 1
    return n_regions
