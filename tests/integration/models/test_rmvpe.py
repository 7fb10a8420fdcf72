"""RMVPE's module: names, the reference's vectors where they are, and the official file's form.

No official weights are at hand here, so that only the mathematics is checked, not accuracy: the vectors are those of
small networks with random weights.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch

from heartvoice.config.presets import F0S, RmvpeConfig
from heartvoice.errors import CheckpointError
from heartvoice.keyed_random import normal
from heartvoice.models.load import load_module, load_network, manifest, random_checkpoint
from heartvoice.models.rmvpe import Rmvpe, open_rmvpe
from heartvoice.stages.f0 import decode_salience, rmvpe_log_mel
from tests.support.f0_engines import SMALL, golden_sizes
from tests.support.golden_cases import GoldenFolder, assert_close, folder_params

FOLDERS = folder_params("seed_vc/rmvpe")
ASSETS = Path(__file__).parents[2] / "assets"


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


@lru_cache(maxsize=4)
def network_of(folder: GoldenFolder) -> Rmvpe:
    network = Rmvpe(golden_sizes(folder))
    network.load_state_dict({name: torch.from_numpy(value) for name, value in folder.weights.items()})
    return network.eval()


def small(seed: int = 0) -> Rmvpe:
    network = load_network(SMALL, random_checkpoint(SMALL, seed))
    assert isinstance(network, Rmvpe)
    return network


def music(n_frames: int) -> torch.Tensor:
    """Log-mel frames of about the right size."""
    return torch.from_numpy(np.maximum(normal(0, "log-mel", 0, (1, 128, n_frames)) * np.float32(3) - 5, np.log(1e-5)))


# ----------------------------------------------------------------------------------------------------------- names


def test_full_size_names_and_shapes_equal_the_checkpoint_s() -> None:
    expected = json.loads((ASSETS / "rmvpe_state_dict.json").read_text())
    sizes = F0S["rmvpe"]
    assert manifest(sizes) == {name: tuple(shape) for name, shape in expected.items()}


def test_official_file_in_half_precision_is_loaded_strictly(tmp_path: Path) -> None:
    wanted = small()
    path = tmp_path / "rmvpe.pt"
    state = {name: value.half() if value.is_floating_point() else value for name, value in wanted.state_dict().items()}
    torch.save(state, path)
    loaded = load_network(SMALL, open_rmvpe(path))
    error = (loaded(music(32)) - wanted(music(32))).abs().max()
    assert 0 < error < 0.02
    del state["fc.1.bias"]
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=r"missing fc\.1\.bias"):
        load_network(SMALL, open_rmvpe(path))


def test_counters_of_batch_norm_may_be_absent(tmp_path: Path) -> None:
    wanted = small()
    state = {name: value for name, value in wanted.state_dict().items() if not name.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "rmvpe.pt")
    with torch.device("meta"):
        loaded = Rmvpe(SMALL)
    load_module(loaded, open_rmvpe(tmp_path / "rmvpe.pt"))
    assert torch.equal(loaded.eval()(music(32)), wanted(music(32)))


# ------------------------------------------------------------------------------------------------- reference vectors


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_stage_equals_the_reference(folder: GoldenFolder) -> None:
    network, io = network_of(folder), folder.io
    unet = network.unet(torch.from_numpy(io["stage.in"]).transpose(1, 2)[:, None])
    assert_close(unet, io["stage.unet"], 1e-5)
    assert_close(network.cnn(unet), io["stage.cnn"], 1e-5)
    assert_close(network(torch.from_numpy(io["stage.in"])), io["stage.out"], 1e-5)


@pytest.mark.parametrize("folder", FOLDERS)
def test_log_mel_equals_the_reference(folder: GoldenFolder) -> None:
    mel = rmvpe_log_mel(folder.io["wave_16k"], golden_sizes(folder).n_mels)
    assert_close(mel[None], folder.io["logmel"], 1e-3)


@pytest.mark.parametrize("folder", FOLDERS)
def test_padded_salience_equals_the_reference(folder: GoldenFolder) -> None:
    io = folder.io
    cases = {len(v[0]): v for name, v in io.items() if name.startswith("pad.salience_")} | {
        io["logmel"].shape[2]: io["salience"]
    }
    assert len(cases) >= 2
    for n_frames, expected in cases.items():
        features = np.pad(io["logmel"][:, :, :n_frames], ((0, 0), (0, 0), (0, -n_frames % 32)))
        assert_close(network_of(folder)(torch.from_numpy(features))[:, :n_frames], expected, 1e-5)


@pytest.mark.parametrize("folder", FOLDERS)
def test_decoded_pitches_equal_the_reference(folder: GoldenFolder) -> None:
    io = folder.io
    assert_close(decode_salience(io["decode.salience"]), io["decode.f0"], 2e-3)
    assert_close(decode_salience(io["salience"][0]), io["f0"], 2e-3)
    for name, expected in io.items():
        if name.startswith("f0_thred_"):
            assert_close(decode_salience(io["salience"][0], float(name.removeprefix("f0_thred_"))), expected, 2e-3)


# -------------------------------------------------------------------------------------------------- random weights


@pytest.mark.parametrize("sizes", [SMALL, replace(SMALL, n_blocks=2, inter_layers=3, en_de_layers=3)])
def test_random_saliences_are_alive(sizes: RmvpeConfig) -> None:
    salience = load_network(sizes, random_checkpoint(sizes, 0))(music(320))[0].numpy()
    assert salience.shape == (320, sizes.n_bins)
    assert np.median(salience) < 0.2
    assert salience.max() > 0.2
    assert len(set(salience.argmax(axis=1))) > 5
    assert salience.std(axis=0).mean() > 0.01  # they move with the input


def test_padding_changes_what_is_before_it() -> None:
    """Why the reference's padding by 0.0 has to be kept: the GRU hears it, even from a place that convolutions miss."""
    features = music(64)
    padded = torch.cat([features, torch.zeros(1, 128, 32)], dim=2)
    network = small()
    assert (network(padded)[:, :64] - network(features)).abs().max() > 1e-4
