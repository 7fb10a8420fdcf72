"""Several separators in one graph: rows do not meet."""

from __future__ import annotations

from pathlib import Path

from tests.integration.export.test_htdemucs_graph import BAG, check_batch


def test_a_batch_of_a_bag_is_its_segments_bit_for_bit(tmp_path: Path) -> None:
    check_batch(BAG, tmp_path)
