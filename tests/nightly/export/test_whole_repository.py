"""A whole repository, exported twice."""

from __future__ import annotations

from pathlib import Path

from heartvoice.export.repository import export_repository
from heartvoice.export.weights import random_weights
from tests.integration.export.test_repository import snapshot
from tests.support.graphs import TINY


def test_two_exports_are_byte_identical(exported: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / "deeper" / "repository"
    export_repository(random_weights(TINY, 0), other)
    assert snapshot(other) == snapshot(exported)
