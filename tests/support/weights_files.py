"""Published weights for tests, from disk, the cache or the network."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

import pytest

from heartvoice.errors import ExportError
from heartvoice.evaluation.lyrics import LyricJudge
from heartvoice.export import wheel_files
from heartvoice.judges.opening import open_tiny_en
from tests.support.golden_cases import roots

CAMPPLUS_SHA256 = "3388cf5fd3493c9ac9c69851d8e7a8badcfb4f3dc631020c4961371646d5ada8"


@lru_cache(maxsize=1)
def resemblyzer() -> Path:
    """Return Resemblyzer's weights; skip the test without cache and network."""
    try:
        return wheel_files.member("resemblyzer")
    except ExportError as error:
        pytest.skip(f"needs Resemblyzer's published weights: {error}")


@lru_cache(maxsize=1)
def spleeter() -> Path:
    """Return Spleeter's weights; skip the test without cache and network."""
    try:
        return wheel_files.member("spleeter")
    except ExportError as error:
        pytest.skip(f"needs Spleeter's published weights: {error}")


@lru_cache(maxsize=4)
def campplus(sha256: str = CAMPPLUS_SHA256) -> Path:
    """Return CAMPPlus' official weights next to a golden folder; skip the test without them."""
    name = "campplus_cn_common.bin"
    for root in roots():
        for above in root.resolve().parents:
            for path in (above / "weights" / name, above / "shared" / "weights" / name):
                if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256:
                    return path
    pytest.skip(f"no weights/{name} beside the golden vectors")


@lru_cache(maxsize=1)
def tiny_en() -> LyricJudge:
    """Return the lyric judge with its published weights; skip the test without cache and network."""
    try:
        return open_tiny_en(threads=1)
    except ExportError as error:
        pytest.skip(f"needs Whisper tiny.en: {error}")
