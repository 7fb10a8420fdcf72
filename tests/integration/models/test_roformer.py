"""RoFormer separators: names, and the reference's vectors where they are. The weights are random: no accuracy."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch

from heartvoice.config.roformer import MEL_BANDS, ROFORMERS, RoformerConfig
from heartvoice.errors import CheckpointError
from heartvoice.models.load import Checkpoint, load_module, load_network, manifest, random_checkpoint
from heartvoice.models.roformer.bands import overlap_table
from heartvoice.models.roformer.network import Roformer
from heartvoice.stages.separation.roformer_transform import RoformerTransform
from tests.support.golden_cases import GoldenFolder, assert_close
from tests.support.roformers import golden_roformers, golden_sizes, mel_bands

TOLERANCE = 2e-5
FOLDERS = [pytest.param(folder, id=folder.label) for folder in golden_roformers()]
ASSETS = Path(__file__).parents[2] / "assets"
SMALL = {
    "bs": RoformerConfig.from_published(
        {"dim": 8, "depth": 1, "dim_head": 4, "heads": 2, "freqs_per_bands": [2, 3, 12], "stft_n_fft": 32,
         "stft_hop_length": 8, "num_stems": 2}
    ),
    "mel": RoformerConfig.from_published(
        {"dim": 8, "depth": 1, "dim_head": 4, "heads": 2, "num_bands": 3, "stft_n_fft": 32, "stft_hop_length": 8,
         "bands_first_last_bin": [[0, 4], [2, 9], [5, 16]], "stereo": False}
    ),
}  # fmt: skip


@lru_cache(maxsize=8)
def network_of(folder: GoldenFolder) -> Roformer:
    source = Checkpoint.open(folder.path / "weights.safetensors")
    network = load_network(golden_sizes(folder), source)
    assert isinstance(network, Roformer)
    return network


@pytest.mark.parametrize("name", ROFORMERS)
def test_full_size_names_and_shapes_equal_the_checkpoint_s(name: str) -> None:
    expected = json.loads((ASSETS / "roformer_state_dicts.json").read_text())[name]
    assert manifest(ROFORMERS[name]) == {key: tuple(shape) for key, shape in expected.items()}


@pytest.mark.parametrize("folder", FOLDERS)
@torch.inference_mode()
def test_waves_equal_the_reference_s(folder: GoldenFolder) -> None:
    network = network_of(folder)
    transform = RoformerTransform(network.sizes)
    for case in sorted(name.removesuffix(".audio") for name in folder.io if name.endswith(".audio")):
        audio, expected = folder.io[f"{case}.audio"], folder.io[f"{case}.out"]
        features = np.stack([transform.features(mix) for mix in audio])
        masks = network(torch.from_numpy(features)).numpy()
        stems = np.stack([transform.separate(*row) for row in zip(features, masks, strict=True)])
        # The reference has no axis of stems where there is one stem.
        missing = expected.shape[-1] - stems.shape[-1]
        assert 0 <= missing < network.sizes.stft_hop_length
        assert_close(stems.reshape(*expected.shape[:-1], -1), expected[..., : stems.shape[-1]], TOLERANCE)


@pytest.mark.parametrize("folder", FOLDERS)
@torch.inference_mode()
def test_layers_equal_the_reference_s(folder: GoldenFolder) -> None:
    network = network_of(folder)
    seen: dict[str, torch.Tensor] = {}
    last = network.sizes.depth - 1
    names = {
        "trace.band_split": "band_split", "trace.layer0.time.attention": "layers.0.0.layers.0.0",
        "trace.layer0.time": "layers.0.0", "trace.layer0.freq": "layers.0.1",
        "trace.layer_last.freq": f"layers.{last}.1", "trace.mask0": "mask_estimators.0",
    }  # fmt: skip
    handles = [
        network.get_submodule(module).register_forward_hook(
            lambda _module, _args, out, name=name: seen.update({name: out})
        )
        for name, module in names.items()
    ]
    network(torch.from_numpy(RoformerTransform(network.sizes).features(folder.io["a.audio"][0]))[None])
    for handle in handles:
        handle.remove()
    for name in names:
        assert_close(seen[name], folder.io[name], TOLERANCE)


def test_the_table_of_mel_bands_is_slaney_s_bank() -> None:
    assert mel_bands(60, 44_100, 2048) == MEL_BANDS


def test_bins_are_averaged_over_the_bands_that_hold_them() -> None:
    counts = overlap_table(SMALL["mel"]).counts[::2]
    assert counts.tolist() == [1, 1, 2, 2, 2, *[2] * 5, *[1] * 7]
    published = overlap_table(ROFORMERS["mel_band_roformer"])
    assert published.counts.sum() == 1979 * 4
    assert set(published.counts) == {1, 2}


def test_a_missing_or_other_tensor_is_refused() -> None:
    whole = random_checkpoint(SMALL["bs"], 0)
    with pytest.raises(CheckpointError, match=r"missing .*norm\.gamma"):
        load_module(Roformer(SMALL["mel"]), whole)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"freqs_per_bands": [2, 3]}, "expected 17 bins, got 5"),
        ({"linear_transformer_depth": 1}, "linear_transformer_depth: expected 0, got 1"),
        ({"num_bands": 64}, "num_bands: expected 60"),
        ({"stft_win_length": 16}, "stft_win_length"),
        ({"stems": ["vocals"], "num_stems": 2}, "stems: expected 2 names"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(changed: dict[str, object], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        RoformerConfig.from_published({"stft_n_fft": 32, "stft_hop_length": 8, **changed})
