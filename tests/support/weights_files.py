"""Published weights for tests: those that may be there, and those that a cache or the network gives."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

import pytest

from heartvoice.errors import ExportError
from heartvoice.export import wheel_files
from tests.support.golden_cases import roots

CAMPPLUS_SHA256 = "3388cf5fd3493c9ac9c69851d8e7a8badcfb4f3dc631020c4961371646d5ada8"


@lru_cache(maxsize=1)
def resemblyzer() -> Path:
    """Resemblyzer's weights, or the test is skipped: there is no cache and no network."""
    try:
        return wheel_files.member("resemblyzer")
    except ExportError as error:
        pytest.skip(f"needs Resemblyzer's published weights: {error}")


@lru_cache(maxsize=4)
def campplus(sha256: str = CAMPPLUS_SHA256) -> Path:
    """CAMPPlus' official weights in a folder `weights` beside a golden folder, or the test is skipped."""
    name = "campplus_cn_common.bin"
    for root in roots():
        for above in root.resolve().parents:
            for path in (above / "weights" / name, above / "shared" / "weights" / name):
                if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256:
                    return path
    pytest.skip(f"no weights/{name} beside the golden vectors")
