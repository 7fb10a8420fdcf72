"""Names of shared-memory regions; each contains its owner's process, which identifies orphans.

A region is `heartvoice_PID_START_REST`: the pid and the start time of the process that owns it. Triton's own regions
have the run's name as the rest, those of clients `client_` and random digits, and the file with the key to a server's
shared-memory calls `key_` and the server's port.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

SHM = Path("/dev/shm")  # noqa: S108 (files in it have mode 0600)
"""Folder of POSIX shared memory."""
PREFIX = "heartvoice_"
RUN_PREFIX = "heartvoice-run-"
"""Prefix of the folders of runs."""
KEY = "key_"
"""Part of the name, after a run's prefix, of the file with the key to its server's shared-memory calls."""
API_KEY_NAME = "heartvoice-shared-memory"
HEADER = f"triton-grpc-protocol-{API_KEY_NAME}"
"""Metadata field that carries that key."""


def process_identity(pid: int) -> str:
    """Return a unique name of a process, its pid and start time in clock ticks; "" without one."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else f"{pid}_{fields[19]}"


def shm_prefix(owner: str, folder: Path | None = None) -> str:
    """Return the prefix of the regions of one run, or of all runs of one process.

    Args:
        owner: a `process_identity`.
        folder: the run's folder; None for all runs.
    """
    run = "" if folder is None else f"{folder.name.removeprefix(RUN_PREFIX)}_"
    return f"{PREFIX}{owner}_{run}"


def owner_of(region: str) -> str:
    """Return the `process_identity` in a region's name."""
    return "_".join(region.removeprefix(PREFIX).split("_")[:2])


def is_dead(owner: str) -> bool:
    """Return True if the process with that `process_identity` is gone."""
    pid = owner.partition("_")[0]
    return not pid.isdigit() or process_identity(int(pid)) != owner


def new_region_name() -> str:
    """Return a new name for a client's region, in /dev/shm and for the server."""
    return f"{shm_prefix(process_identity(os.getpid()))}client_{secrets.token_hex(8)}"


def find_key(port: int) -> str | None:
    """Return the key to the shared-memory calls of the server at this loopback port.

    Returns:
        None if the server allows no shared memory, or not to this user.
    """
    for path in SHM.glob(f"{PREFIX}*_{KEY}{port}"):
        with contextlib.suppress(OSError):  # gone, or another user's
            if path.stat().st_uid == os.getuid() and not is_dead(owner_of(path.name)):
                return path.read_text(encoding="ascii")
    return None
