"""Errors of jobs for which the machine lacks memory, shared memory or disk space."""

from __future__ import annotations

import errno

from heartvoice.errors import ModelUnavailableError

_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
SHARED_MEMORY = "shared memory"
"""Part of the text of every such error of Triton's Python backend. Such a text names the region, which no caller
should learn."""
_ALLOCATIONS = (
    "bad_alloc",
    "bad allocation",
    "Failed to allocate memory",
    "Cannot allocate memory",
    "can't start new thread",
)
"""Texts of onnxruntime, the C++ library, the system and Python."""


def as_resource_error(model: str, error: BaseException | str) -> ModelUnavailableError | None:
    """Return the caller's error if `error` means that a resource of the server is used up, else None.

    Args:
        model: the model whose job failed.
        error: the exception, or the text of another model's error.
    """
    text = str(error)
    if isinstance(error, MemoryError) or any(words in text for words in _ALLOCATIONS):
        what = "memory"
    elif isinstance(error, OSError) and error.errno in _DISK:
        what = "space for temporary files"
    elif SHARED_MEMORY in text and ("No space left" in text or "Failed to increase" in text):
        what = SHARED_MEMORY
    else:
        return None
    return out_of(model, what)


def out_of(model: str, what: str) -> ModelUnavailableError:
    """Return the error of a job for which there is not enough of `what`."""
    return ModelUnavailableError(f"{model}: the server has run out of {what}; try again later")
