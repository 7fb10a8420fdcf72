"""Drops files from the kernel's page cache, which competes with CUDA where CPU and GPU share memory."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path

log = logging.getLogger(__name__)


def drop(roots: Iterable[Path]) -> int:
    """Have the kernel forget the clean, unmapped pages of every file below `roots`.

    Returns:
        Bytes of the files; how many pages of them were cached is not known.
    """
    n_bytes = 0
    for path in (path for root in roots for path in sorted(root.rglob("*")) if path.is_file()):
        try:
            n_bytes += _drop(path)
        except OSError as error:
            log.warning("%s stays in the page cache: %s", path, error.strerror)
    return n_bytes


def _drop(path: Path) -> int:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        return os.fstat(handle).st_size
    finally:
        os.close(handle)
