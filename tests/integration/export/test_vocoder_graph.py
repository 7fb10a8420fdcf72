"""The vocoder's graph against its module, the reference and itself in chunks; the style encoder's graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from heartvoice.config.presets import CampplusConfig
from heartvoice.export.style_graph import build_svc_style
from heartvoice.models.speaker import open_campplus
from tests.support import weights_files
from tests.support.golden_cases import GoldenFolder, assert_close, folder_params
from tests.support.graphs import engine_of
from tests.unit.export.test_vocoder_graph import FOLDERS, golden_engine


@pytest.mark.parametrize("folder", FOLDERS)
def test_samples_are_the_reference(folder: GoldenFolder) -> None:
    engine, io = golden_engine(folder), folder.io
    assert_close(engine.run({"mel": io["mel"]})["audio"], io["wave"], 2e-5)
    loud = engine.run({"mel": io["mel_loud"]})["audio"]
    assert np.abs(loud).max() == 1.0
    assert_close(loud, io["wave_loud"], 2e-5)


@pytest.mark.parametrize("folder", folder_params("seed_vc/campplus"))
def test_style_with_official_weights_is_the_reference(folder: GoldenFolder, tmp_path: Path) -> None:
    """As the network gives it: its length is about 12, not 1."""
    sizes = CampplusConfig()
    source = open_campplus(weights_files.campplus(folder.config["weights_sha256"]), sizes)
    engine, io = engine_of(build_svc_style(sizes, source), tmp_path), folder.io
    fbank = io["synthetic.fbank"]
    style = engine.run({"features": (fbank - fbank.mean(axis=0))[None]})["embedding"]
    assert_close(style, io["synthetic.embedding"], 1e-4)
    assert np.linalg.norm(style) > 3
