"""The RoFormers' graphs against their modules and the reference, at several lengths and on inputs of other sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from heartvoice.config.roformer import RoformerConfig
from heartvoice.export.layout import Precision
from heartvoice.export.roformer_graph import build_roformer
from heartvoice.keyed_random import normal
from heartvoice.models.load import Checkpoint, load_network, random_checkpoint
from heartvoice.stages.separation.roformer_transform import RoformerTransform
from tests.support.golden_cases import GoldenFolder, assert_close
from tests.support.graphs import engine_of, relative_error
from tests.support.roformers import golden_roformers, golden_sizes

COMMON = {"dim": 8, "depth": 2, "dim_head": 4, "heads": 3, "stft_n_fft": 32, "stft_hop_length": 8}
SMALL = {
    "bs": {"freqs_per_bands": [2, 3, 12], "num_stems": 2, "time_transformer_depth": 2},
    "mel": {"num_bands": 4, "bands_first_last_bin": [[0, 4], [2, 9], [4, 11], [10, 16]], "stereo": False},
    "mel, one layer": {
        "num_bands": 2, "bands_first_last_bin": [[0, 9], [9, 16]], "num_stems": 3, "mask_estimator_depth": 1
    },
}  # fmt: skip


@pytest.mark.parametrize(("precision", "limit"), [("fp32", 1e-5), ("fp16", 2e-2)])
@pytest.mark.parametrize("n_frames", [1, 13])
@pytest.mark.parametrize("name", SMALL)
def test_masks_are_pytorchs(name: str, n_frames: int, precision: Precision, limit: float, tmp_path: Path) -> None:
    sizes = RoformerConfig.from_published(COMMON | SMALL[name])
    source = random_checkpoint(sizes, 1)
    engine = engine_of(build_roformer(sizes, source, precision, n_frames=n_frames), tmp_path)
    network = load_network(sizes, source)
    for rows, gain in ((1, 1.0), (3, 1e-4), (2, 100.0)):
        features = normal(rows, "features", 0, (rows, n_frames, sizes.n_features)) * np.float32(gain)
        features[0, 0] = 0  # silence has a norm, too
        with torch.inference_mode():
            expected = network(torch.from_numpy(features)).numpy()
        got = engine.run({"features": features})["masks"]
        assert relative_error(got, expected) < limit
    assert (relative_error(got, expected) > 1e-6) == (precision == "fp16")


@pytest.mark.parametrize("folder", [pytest.param(folder, id=folder.label) for folder in golden_roformers()])
def test_waves_equal_the_reference_s(folder: GoldenFolder, tmp_path: Path) -> None:
    sizes = golden_sizes(folder)
    transform, expected = RoformerTransform(sizes), folder.io["a.out"]
    features = transform.features(folder.io["a.audio"][0])
    source = Checkpoint.open(folder.path / "weights.safetensors")
    engine = engine_of(build_roformer(sizes, source, n_frames=len(features)), tmp_path)
    masks = engine.run({"features": features[None]})["masks"]
    stems = transform.separate(features, masks[0])
    assert_close(stems.reshape(expected.shape), expected, 2e-5)
