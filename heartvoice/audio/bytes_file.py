"""Presents bytes in memory to libsndfile as a file."""

from __future__ import annotations

import os


class ByteSource:
    """A read-only file over bytes, for libsndfile's callbacks.

    Its methods never raise: cffi would print an exception from a callback and drop it.
    """

    def __init__(self, data: bytes | memoryview, head: bytes = b"") -> None:
        """Present `data`; its first bytes are `head` in place of its own."""
        self._data, self._head = memoryview(data), head
        self._at = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the read position, clamped to [0, size]."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at}.get(whence, len(self._data))
        self._at = min(max(base + offset, 0), len(self._data))
        return self._at

    @property
    def left(self) -> int:
        """Bytes that have not been read yet."""
        return max(len(self._data) - self._at, 0)

    def tell(self) -> int:
        """Return the read position."""
        return self._at

    def read(self, count: int = -1) -> bytes:
        """Read at most `count` bytes; a negative count reads all that are left."""
        end = len(self._data) if count < 0 else min(self._at + count, len(self._data))
        start, self._at = self._at, max(end, self._at)
        head = self._head[start:end]
        return head + bytes(self._data[start + len(head) : end])
