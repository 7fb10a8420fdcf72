"""The separator's graph: the official width, bags, `mid`, and half precision at full length."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from heartvoice.config.presets import SeparatorConfig, htdemucs_of
from heartvoice.export.mixed_precision import HALVES, HalfPrecision
from heartvoice.export.writer import GRAPH_FILE
from tests.integration.export.test_htdemucs_graph import SMALLEST, check_batch, check_graph
from tests.integration.export.test_mixed_precision import check_separator
from tests.support.graphs import TINY

BAG = replace(SMALLEST, sources=("a", "b"), n_models=2)
VARIANTS = {
    "bag": BAG,
    "mid": replace(htdemucs_of("mid"), segment="1/2", t_layers=1),
    "official": replace(SeparatorConfig(), segment="39/20"),  # a quarter of the official length is enough to compare
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("variant", VARIANTS)
def test_graph_is_its_module(variant: str, tmp_path: Path) -> None:
    check_graph(VARIANTS[variant], tmp_path)


def test_a_batch_of_a_bag_is_its_segments_bit_for_bit(tmp_path: Path) -> None:
    check_batch(BAG, tmp_path)


@pytest.mark.parametrize("precision", HALVES)
def test_separator_is_typed_and_near_float32_at_full_length(
    exported: Path, tmp_path: Path, precision: HalfPrecision
) -> None:
    shutil.copy(exported / "htdemucs" / "1" / GRAPH_FILE, tmp_path / GRAPH_FILE)
    check_separator(TINY, tmp_path, precision)
