"""One exported `tiny` repository for all tests of the export."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from heartvoice.export.weights import Weights, random_weights
from tests.support.graphs import TINY


@pytest.fixture(scope="session")
def tiny_weights() -> Weights:
    return random_weights(TINY, 0)


@pytest.fixture
def repository(exported: Path, tmp_path: Path) -> Path:
    """Copy the repository, so that a test may change it."""
    return Path(shutil.copytree(exported, tmp_path / "copy" / "tiny"))
