"""Closes Triton's shared memory to other users.

Fault (Triton 2.51): the shared memory with jobs' samples is readable for all users of the host at any umask, because
    Triton's library sets the mode.
Does: removes the other users' rights before the server is reported ready, and after each reload.
Test: `test_shared_memory_is_for_the_servers_user_alone`,
    `test_a_runs_shared_memory_is_closed_to_others_and_no_other_runs`
Delete when: Triton creates its regions with mode 0600.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from heartvoice import shm_regions
from heartvoice.shm_regions import shm_prefix


def restrict_permissions(owner: str, folder: Path | None) -> None:
    """Make a run's regions accessible to their user alone. Processes with an open region keep it.

    Args:
        owner: `process_identity` of the supervisor.
        folder: the run's folder; None for all runs of the owner.
    """
    for region in shm_regions.SHM.glob(f"{shm_prefix(owner, folder)}*"):
        with contextlib.suppress(FileNotFoundError):
            if region.stat().st_mode & 0o077:
                region.chmod(0o600)
