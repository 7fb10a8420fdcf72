"""Files that only their owner may read, placed as a whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from heartvoice.errors import InvalidRequestError


def place_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write all files with mode 0600, or none; the folder has mode 0700.

    Raises:
        OSError: nothing can be written there, or files are there by now.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))  # of mode 0700
    try:
        for name, data in files.items():
            write_new_secret(part / name, data)
        part.rename(folder)  # fails if there are files in it by now
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def replace_secret(path: Path, data: bytes) -> None:
    """Give a file of mode 0600 new content; a reader sees the old or the new one, also after a power failure."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        write_new_secret(part, data)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_secret(path: Path, *, field: str) -> bytes:
    """Read a file that nobody but its owner may read.

    Raises:
        InvalidRequestError: others may.
        OSError: it cannot be read.
    """
    if path.stat().st_mode & 0o077:
        raise InvalidRequestError(f"{field}: expected a secret of mode 0600, got {path}; chmod 600 it")
    return path.read_bytes()


def write_new_secret(path: Path, data: bytes) -> None:
    """Write a new file of mode 0600.

    Raises:
        FileExistsError: it exists.
        OSError: it cannot be written.
    """
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
