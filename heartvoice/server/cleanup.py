"""Folders of runs, and what remains of servers that died."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from heartvoice.server.workarounds import environment_folders, orphaned_regions
from heartvoice.server.workarounds.orphaned_stubs import kill_stubs
from heartvoice.shm_regions import RUN_PREFIX, is_dead, owner_of, process_identity, shm_prefix


def new_run_folder() -> Path:
    """Make a private folder for this process's run, marked with its owner."""
    folder = Path(tempfile.mkdtemp(prefix=RUN_PREFIX))
    (folder / "owner").write_text(process_identity(os.getpid()))
    return folder


def remove_run(folder: Path, owner: str) -> int:
    """Remove a run's processes, folder and shared memory; return the number of regions."""
    prefix = shm_prefix(owner, folder)
    kill_stubs(lambda region: region.startswith(prefix))
    n_regions = orphaned_regions.remove(prefix)
    environment_folders.remove(folder)
    shutil.rmtree(folder, ignore_errors=True)
    return n_regions


def remove_stale() -> int:
    """Remove what dead runs of this user left; return the number of shared-memory regions."""
    n_regions = 0
    kill_stubs(lambda region: is_dead(owner_of(region)))
    for folder in Path(tempfile.gettempdir()).glob(f"{RUN_PREFIX}*"):
        marker = folder / "owner"
        owner = marker.read_text() if marker.is_file() else ""
        if folder.stat().st_uid == os.getuid() and owner and is_dead(owner):
            n_regions += remove_run(folder, owner)
    return n_regions + orphaned_regions.remove_dead()
