"""One exported `tiny` repository for all tests of the export."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from heartvoice.export.repository import export_repository
from heartvoice.export.weights import Weights, random_weights
from tests.export.graphs import TINY


@pytest.fixture(scope="session")
def tiny_weights() -> Weights:
    return random_weights(TINY, 0)


@pytest.fixture(scope="session")
def exported(tiny_weights: Weights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed by a test."""
    root = tmp_path_factory.mktemp("exported") / "tiny"
    export_repository(tiny_weights, root)
    return root


@pytest.fixture
def repository(exported: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(exported, tmp_path / "copy" / "tiny"))
