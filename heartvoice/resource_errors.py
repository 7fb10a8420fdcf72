"""What a job is told when the machine has no room: memory, shared memory, disk. It is no fault of the request."""

from __future__ import annotations

import errno
import os

import numpy as np

from heartvoice import shm_regions
from heartvoice.arrays import Array
from heartvoice.errors import ModelUnavailableError

GROWTH_BYTES = 2**20
"""Shared memory grows by so much at a time."""
_ALWAYS_FITS = 100_000
"""Bytes that fit into the 1 MB which every process has from its start."""

_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_SHARED_MEMORY = "shared memory"
"""In the text of every error that Triton's Python backend raises for want of it; such a text names the region, which no
caller should learn."""
_ALLOCATIONS = (
    "bad_alloc",
    "bad allocation",
    "Failed to allocate memory",
    "Cannot allocate memory",
    "can't start new thread",
)
"""What onnxruntime, the C++ library, the system and Python say."""


def as_resource_error(model: str, error: BaseException | str) -> ModelUnavailableError | None:
    """The error for a caller if `error` means that something is used up on the server; None if it means another thing.

    Args:
        model: whose job it was.
        error: what was raised, or the text of another model's error.
    """
    text = str(error)
    if isinstance(error, MemoryError) or any(words in text for words in _ALLOCATIONS):
        what = "memory"
    elif isinstance(error, OSError) and error.errno in _DISK:
        what = "space for temporary files"
    elif _SHARED_MEMORY in text and ("No space left" in text or "Failed to increase" in text):
        what = _SHARED_MEMORY
    else:
        return None
    return ModelUnavailableError(_used_up(model, what))


def payload_bytes(value: Array | str | bytes) -> int:
    """Size of an output."""
    return value.nbytes if isinstance(value, np.ndarray) else len(value)


def check_shared_memory(model: str, n_bytes: int) -> None:
    """Whether a payload has room, even if it finds none in what its process has already.

    Raises:
        ModelUnavailableError: it has not.
    """
    if n_bytes <= _ALWAYS_FITS or not shm_regions.SHM.is_dir():
        return
    space = os.statvfs(shm_regions.SHM)
    if space.f_bavail * space.f_frsize < n_bytes + GROWTH_BYTES:
        raise ModelUnavailableError(_used_up(model, _SHARED_MEMORY))


def _used_up(model: str, what: str) -> str:
    return f"{model}: the server has run out of {what}; try again later"
