"""Run folders and shared memory of servers that died without cleaning up."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

SHM = Path("/dev/shm")
PREFIX = "heartvoice_"
_RUN_PREFIX = "heartvoice-run-"
KEY = "key_"
"""Behind a run's prefix, in the name of the file with the key to its server's shared-memory calls."""


def process_identity(pid: int) -> str:
    """A process's name for ever: its pid and when it started, in clock ticks since boot; "" if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else f"{pid}_{fields[19]}"


def shm_prefix(owner: str, folder: Path | None = None) -> str:
    """The prefix of the shared-memory regions of one run, or of all runs of one process."""
    run = "" if folder is None else f"{folder.name.removeprefix(_RUN_PREFIX)}_"
    return f"{PREFIX}{owner}_{run}"


def restrict_permissions(owner: str, folder: Path | None) -> None:
    """Keep other users from opening a run's shared memory, in which jobs' samples lie: Triton makes it readable.

    A umask does not help, since its library sets the mode itself. Who has a region open already is not disturbed.
    """
    for region in SHM.glob(f"{shm_prefix(owner, folder)}*"):
        with contextlib.suppress(FileNotFoundError):
            if region.stat().st_mode & 0o077:
                region.chmod(0o600)


def new_run_folder() -> Path:
    """A private folder for this process's run, marked with its owner."""
    folder = Path(tempfile.mkdtemp(prefix=_RUN_PREFIX))
    (folder / "owner").write_text(process_identity(os.getpid()))
    return folder


def remove_run(folder: Path, owner: str) -> int:
    """Remove a run's processes, folder and shared memory; returns how many regions were left."""
    prefix = shm_prefix(owner, folder)
    _kill_stubs(lambda region: region.startswith(prefix))
    regions = list(SHM.glob(f"{prefix}*"))
    for region in regions:
        region.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    return len(regions)


def remove_unused(folder: Path, owner: str) -> int:
    """Remove the shared memory of a living run's killed stubs; returns how many regions that were."""
    used, prefix = {region for _, region in stubs()}, shm_prefix(owner, folder)
    found = SHM.glob(f"{prefix}*")
    regions = [region for region in found if region.name not in used and not region.name.startswith(f"{prefix}{KEY}")]
    for region in regions:
        region.unlink(missing_ok=True)
    return len(regions)


def stubs() -> Iterator[tuple[int, str]]:
    """This user's stubs: process and shared memory.

    A stub is known by its command line, which names its shared memory: so also one that had only just been started.
    """
    for process in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (process / "cmdline").read_text().split("\0") if process.stat().st_uid == os.getuid() else []
        except (OSError, UnicodeDecodeError):
            continue  # gone, or none of ours
        yield from ((int(process.name), argument) for argument in arguments if argument.startswith(PREFIX))


def _kill_stubs(wanted: Callable[[str], bool]) -> None:
    """Kill the stubs whose shared memory is `wanted`: one that waits for a killed server lives on."""
    for pid, region in stubs():
        if wanted(region):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def owner_of(region: str) -> str:
    """Whose run a shared-memory region's name belongs to."""
    return "_".join(region.removeprefix(PREFIX).split("_")[:2])


def is_dead(owner: str) -> bool:
    """Whether the process of that `process_identity` is gone."""
    pid = owner.partition("_")[0]
    return not pid.isdigit() or process_identity(int(pid)) != owner


def remove_stale() -> int:
    """Remove what dead runs of this user left; returns how many shared-memory regions that were."""
    n_regions = 0
    _kill_stubs(lambda region: is_dead(owner_of(region)))
    for folder in Path(tempfile.gettempdir()).glob(f"{_RUN_PREFIX}*"):
        marker = folder / "owner"
        owner = marker.read_text() if marker.is_file() else ""
        if folder.stat().st_uid == os.getuid() and owner and is_dead(owner):
            n_regions += remove_run(folder, owner)
    for region in SHM.glob(f"{PREFIX}*"):
        if region.stat().st_uid == os.getuid() and is_dead(owner_of(region.name)):
            region.unlink(missing_ok=True)
            n_regions += 1
    return n_regions
