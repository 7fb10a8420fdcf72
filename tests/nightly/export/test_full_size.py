"""Layers of the official networks at full width, exported and compared; weights beyond 2 GB."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from heartvoice.config.presets import PRESETS
from heartvoice.export.flow_graph import build_heartcodec_flow
from heartvoice.export.heartmula_graph import build_heartmula_step
from heartvoice.export.parity import one_layer
from heartvoice.export.repository import export_repository
from heartvoice.export.weights import random_weights
from heartvoice.models.load import random_checkpoint
from heartvoice.runtime.repository import MANIFEST

pytestmark = pytest.mark.timeout(1200)

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


def test_official_graphs_hold_every_value_that_decoding_reads() -> None:
    preset = PRESETS["oss-3b"]
    step = build_heartmula_step(preset, random_checkpoint(preset.lm, 0))
    assert sum(math.prod(weight.shape) for weight in step.weights if weight.checked) == 3_938_113_536
    codec = random_checkpoint(preset.codec, 0)
    flow = build_heartcodec_flow(preset.codec, codec)
    assert sum(math.prod(weight.shape) for weight in flow.weights if weight.checked) == 1_486_920_192
