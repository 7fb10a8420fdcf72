"""Hashes of files, read in blocks."""

from __future__ import annotations

import hashlib
from pathlib import Path


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while part := stream.read(16 * 2**20):
            digest.update(part)
    return digest.hexdigest()
