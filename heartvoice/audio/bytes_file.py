"""Bytes in memory as libsndfile reads them."""

from __future__ import annotations

import os


class ByteSource:
    """Bytes as a file for libsndfile that never raises: an exception inside its callbacks would be printed."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._at = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place; beyond either end is that end."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at}.get(whence, len(self._data))
        self._at = min(max(base + offset, 0), len(self._data))
        return self._at

    def tell(self) -> int:
        """Where the next read begins."""
        return self._at

    def read(self, count: int = -1) -> bytes:
        """At most `count` bytes; all that are left if it is negative."""
        end = len(self._data) if count < 0 else min(self._at + count, len(self._data))
        start, self._at = self._at, end
        return bytes(self._data[start:end])
