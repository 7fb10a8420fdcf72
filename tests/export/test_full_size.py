"""Layers of the official networks at full width, exported and compared; weights beyond 2 GB."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from heartvoice.export.parity import one_layer
from heartvoice.export.repository import export_repository
from heartvoice.export.weights import random_weights
from heartvoice.presets import PRESETS
from heartvoice.repository import MANIFEST

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

# One backbone layer, one depth layer, one codec block of each width; the text table is only looked up.
PIECES = one_layer(replace(PRESETS["oss-3b"], lm=replace(PRESETS["oss-3b"].lm, text_vocab_size=128 * 1024 // 64)))


@pytest.mark.parametrize(
    ("model", "least_bytes"),
    [("heartmula_step", 2 * 2**30), ("heartcodec_flow", 2**30), ("heartcodec_decoder", 2**28)],
)
def test_full_width_layers_are_pytorchs(model: str, least_bytes: int, tmp_path: Path) -> None:
    ids = replace(PIECES.ids, text_bos_id=2000, text_eos_id=2001)
    export_repository(random_weights(replace(PIECES, ids=ids), 0), tmp_path / "r", only=[model])
    manifest = json.loads((tmp_path / "r" / model / MANIFEST).read_text())
    assert manifest["files"]["model.onnx.data"]["bytes"] > least_bytes
    assert manifest["parity"]["compared"] == "whole"
    assert max(manifest["parity"]["relative_error"].values()) < 1e-4
