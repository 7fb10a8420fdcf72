"""Run folders and shared memory of servers that died without cleaning up."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from heartvoice import shm_regions
from heartvoice.shm_regions import KEY, PREFIX, RUN_PREFIX, is_dead, owner_of, process_identity, shm_prefix


def restrict_permissions(owner: str, folder: Path | None) -> None:
    """Keep other users from opening a run's shared memory, in which jobs' samples lie: Triton makes it readable.

    A umask does not help, since its library sets the mode itself. Who has a region open already is not disturbed.
    """
    for region in shm_regions.SHM.glob(f"{shm_prefix(owner, folder)}*"):
        with contextlib.suppress(FileNotFoundError):
            if region.stat().st_mode & 0o077:
                region.chmod(0o600)


def new_run_folder() -> Path:
    """A private folder for this process's run, marked with its owner."""
    folder = Path(tempfile.mkdtemp(prefix=RUN_PREFIX))
    (folder / "owner").write_text(process_identity(os.getpid()))
    return folder


def remove_run(folder: Path, owner: str) -> int:
    """Remove a run's processes, folder and shared memory; returns how many regions were left."""
    prefix = shm_prefix(owner, folder)
    _kill_stubs(lambda region: region.startswith(prefix))
    regions = list(shm_regions.SHM.glob(f"{prefix}*"))
    for region in regions:
        region.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    return len(regions)


def remove_unused(folder: Path, owner: str) -> int:
    """Remove the shared memory of a living run's killed stubs; returns how many regions that were."""
    used, prefix = {region for _, region in stubs()}, shm_prefix(owner, folder)
    found = shm_regions.SHM.glob(f"{prefix}*")
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


def remove_stale() -> int:
    """Remove what dead runs of this user left; returns how many shared-memory regions that were."""
    n_regions = 0
    _kill_stubs(lambda region: is_dead(owner_of(region)))
    for folder in Path(tempfile.gettempdir()).glob(f"{RUN_PREFIX}*"):
        marker = folder / "owner"
        owner = marker.read_text() if marker.is_file() else ""
        if folder.stat().st_uid == os.getuid() and owner and is_dead(owner):
            n_regions += remove_run(folder, owner)
    for region in shm_regions.SHM.glob(f"{PREFIX}*"):
        if region.stat().st_uid == os.getuid() and is_dead(owner_of(region.name)):
            region.unlink(missing_ok=True)
            n_regions += 1
    return n_regions
