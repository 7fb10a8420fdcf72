"""The secret key of a service, as a file, and the payloads that are made with it."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from pathlib import Path

from heartvoice.errors import InvalidRequestError
from heartvoice.file_errors import naming
from heartvoice.secret_files import write_new_secret

ALGORITHM = "org.heartvoice.patchwork.1"
"""Name of the mark in reports and manifests; it changes with the pattern."""
KEY_FILE = "watermark.key"
"""Name of a key's file in a folder of keys."""
KEY_BYTES = 32
SONG, COVER = "song", "cover"
"""Kinds of patterns. A cover of a marked song carries both: in one pattern the payloads would mix."""
_KEY = re.compile(rf"[0-9a-f]{{{2 * KEY_BYTES}}}")


def make_key(path: Path) -> bytes:
    """Make a key and write it to a new file that its owner alone can read.

    Raises:
        FileExistsError: the file exists: whoever loses a key cannot find its marks again.
        OSError: the file cannot be written.
    """
    key = secrets.token_bytes(KEY_BYTES)
    with naming(path):
        write_new_secret(path, f"{key.hex()}\n".encode())
    return key


def read_key(path: Path) -> bytes:
    """Read a key that `make_key` wrote.

    Raises:
        InvalidRequestError: it cannot be read, holds something else, or other users can read it.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            text = file.read(4 * KEY_BYTES).decode("ascii", "replace").strip()
    except OSError as error:
        raise InvalidRequestError(f"watermark key: cannot read {str(path)!r}: {error.strerror}") from error
    if mode & 0o077:
        raise InvalidRequestError(f"watermark key: expected mode 0600, got {mode:04o}: chmod 600 {path}")
    if not _KEY.fullmatch(text):
        raise InvalidRequestError(
            f"watermark key: expected {2 * KEY_BYTES} hexadecimal digits in lower case, got something else in {path}"
        )
    return bytes.fromhex(text)


def pattern_keys(key: bytes) -> dict[str, bytes]:
    """Return the keys of the patterns that a service writes, by kind: `SONG` and `COVER`."""
    return {SONG: key, COVER: hmac.digest(key, b"heartvoice cover", hashlib.sha256)}


def payload_of(key: bytes, *fields: bytes) -> int:
    """32 bits of an HMAC-SHA256 over fields, of which each is preceded by its length."""
    message = b"".join(len(field).to_bytes(8, "big") + field for field in fields)
    return int.from_bytes(hmac.digest(key, b"heartvoice payload\0" + message, hashlib.sha256)[:4], "big")
