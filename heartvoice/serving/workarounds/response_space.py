"""Checks the free shared memory before a unary answer is sent.

Fault (Triton 2.51): a caller can wait for ever if shared memory runs out during a send.
Does: compares the answer's size with the free space of /dev/shm, and fails the job if it does not fit.
Test: `test_a_payload_without_room_is_refused_before_it_is_sent`
Delete when: a send without shared memory raises, and the final flag can still be sent after it.
"""

from __future__ import annotations

import os

import numpy as np

from heartvoice import shm_regions
from heartvoice.arrays import Array
from heartvoice.resource_errors import SHARED_MEMORY, out_of

GROWTH_BYTES = 2**20
"""Growth step of Triton's shared memory in bytes."""
_ALWAYS_FITS = 100_000
"""Bytes that fit into the initial 1 MB of every process."""


def payload_bytes(value: Array | str | bytes) -> int:
    """Return the size of an output in bytes."""
    return value.nbytes if isinstance(value, np.ndarray) else len(value)


def check_shared_memory(model: str, n_bytes: int) -> None:
    """Check that a payload fits, assuming no free space in its process's current region.

    Raises:
        ModelUnavailableError: it does not fit.
    """
    if n_bytes <= _ALWAYS_FITS or not shm_regions.SHM.is_dir():
        return
    space = os.statvfs(shm_regions.SHM)
    if space.f_bavail * space.f_frsize < n_bytes + GROWTH_BYTES:
        raise out_of(model, SHARED_MEMORY)
