"""Errors of files that name the file: Python's own do not, where a write or its end fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have an OSError of the block name `path`, if it names no file.

    Raises:
        OSError: of the block, for example `No space left on device`.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_file(path: Path, content: bytes | str) -> None:
    """Write a whole file; text as UTF-8.

    Raises:
        OSError: naming the file.
    """
    with naming(path):
        path.write_bytes(content.encode() if isinstance(content, str) else content)
