"""Files leave the page cache without root."""

from __future__ import annotations

import ctypes
import logging
import mmap
import os
from pathlib import Path

import pytest

from heartvoice.server import page_cache


def cached_pages(path: Path) -> int:
    """How many of a file's pages the kernel holds, by mincore."""
    size = path.stat().st_size
    n_pages = -(-size // mmap.PAGESIZE)
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), size, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE) as m,
    ):
        start = ctypes.addressof(ctypes.c_char.from_buffer(m))
        held = (ctypes.c_ubyte * n_pages)()
        assert ctypes.CDLL(None, use_errno=True).mincore(ctypes.c_void_p(start), ctypes.c_size_t(size), held) == 0
    return sum(page & 1 for page in held)


def test_dropped_files_are_cached_no_longer(tmp_path: Path) -> None:
    path = tmp_path / "model" / "1" / "model.onnx.data"
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        file.write(bytes(64 * mmap.PAGESIZE))
        file.flush()
        os.fsync(file.fileno())  # dirty pages stay
    path.read_bytes()
    before = cached_pages(path)
    assert page_cache.drop([tmp_path]) == 64 * mmap.PAGESIZE
    if before == 0 or os.statvfs(path).f_blocks == 0:
        pytest.skip("this file system has no page cache")
    if cached_pages(path) == before:
        pytest.skip("this file system ignores posix_fadvise, as memory file systems do")
    assert cached_pages(path) == 0


def test_unreadable_file_is_told_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in "ab":
        (tmp_path / name).write_bytes(b"123")
    real = os.open

    def fails(path: Path, flags: int) -> int:
        if Path(path).name == "a":
            raise PermissionError(13, "Permission denied")
        return real(path, flags)

    monkeypatch.setattr(os, "open", fails)
    with caplog.at_level(logging.WARNING):
        assert page_cache.drop([tmp_path]) == 3
    assert "a stays in the page cache: Permission denied" in caplog.text
