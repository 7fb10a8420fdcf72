"""Removes orphaned shared-memory regions.

Fault (Triton 2.51): shared-memory regions stay after the server or a stub was killed.
Does: identifies regions by their names, which contain their owner's process and its start time. It removes those of
    dead owners at the next start, those of a run at its stop, and those of killed stubs at each reload.
Test: `test_shared_memory_of_a_living_run_s_killed_stubs_goes`,
    `test_a_killed_server_leaves_nothing_after_the_next_start`
Delete when: Triton unlinks its regions as soon as both sides have mapped them.
"""

from __future__ import annotations

import os
from pathlib import Path

from heartvoice import shm_regions
from heartvoice.server.workarounds.orphaned_stubs import stubs
from heartvoice.shm_regions import KEY, PREFIX, is_dead, owner_of, shm_prefix


def remove(prefix: str) -> int:
    """Remove the regions whose names begin with `prefix`; return their number."""
    regions = list(shm_regions.SHM.glob(f"{prefix}*"))
    for region in regions:
        region.unlink(missing_ok=True)
    return len(regions)


def remove_dead() -> int:
    """Remove this user's regions whose owner is dead; return their number."""
    n_regions = 0
    for region in shm_regions.SHM.glob(f"{PREFIX}*"):
        if region.stat().st_uid == os.getuid() and is_dead(owner_of(region.name)):
            region.unlink(missing_ok=True)
            n_regions += 1
    return n_regions


def remove_unused(folder: Path, owner: str) -> int:
    """Remove the regions of a living run's killed stubs; return their number."""
    used, prefix = {region for _, region in stubs()}, shm_prefix(owner, folder)
    found = shm_regions.SHM.glob(f"{prefix}*")
    regions = [region for region in found if region.name not in used and not region.name.startswith(f"{prefix}{KEY}")]
    for region in regions:
        region.unlink(missing_ok=True)
    return len(regions)
