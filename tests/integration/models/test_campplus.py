"""CAMPPlus: official names, reference vectors with the official weights, and its behaviour with random ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from heartvoice.audio.dsp import kaldi_fbank
from heartvoice.checkpoints.random_init import RandomCheckpoint
from heartvoice.checkpoints.speaker import BATCHES, speaker_init
from heartvoice.config.presets import CampplusConfig
from heartvoice.errors import CheckpointError
from heartvoice.keyed_random import normal
from heartvoice.models.campplus import MIN_FRAMES, Campplus, segment_means
from heartvoice.models.load import Checkpoint, TensorSource, load_module
from heartvoice.models.speaker import build_speaker, open_campplus, speaker_manifest
from tests.support import weights_files
from tests.support.golden_cases import GoldenFolder, assert_close, folder_params

KIND = "seed_vc/campplus"
SMALL = CampplusConfig(
    n_bands=16, embedding=24, head_channels=4, init_channels=16, growth=4, bottleneck=16,
    blocks=(2, 3), dilations=(1, 2), segment_frames=10,
)  # fmt: skip


def loaded(sizes: CampplusConfig, source: TensorSource) -> Campplus:
    with torch.device("meta"):
        network = build_speaker(sizes)
    load_module(network, source)
    assert isinstance(network, Campplus)
    return network.eval()


def random_network(sizes: CampplusConfig = SMALL, seed: int = 0) -> Campplus:
    return loaded(sizes, RandomCheckpoint(speaker_manifest(sizes), seed, speaker_init(sizes)))


@torch.inference_mode()
def embed(network: nn.Module, features: np.ndarray) -> np.ndarray:
    result: np.ndarray = network(torch.from_numpy(features)).numpy()
    return result


# --------------------------------------------------------------------------------------------------------------- golden


@pytest.mark.parametrize("folder", folder_params(KIND))
def test_the_filter_bank_is_the_reference(folder: GoldenFolder) -> None:
    n_bands = CampplusConfig.from_config(folder.config).n_bands
    assert_close(kaldi_fbank(folder.io["synthetic.wave_16k"][0], 16_000, n_bands), folder.io["synthetic.fbank"], 5e-4)
    silence = np.zeros(4000, np.float32)
    assert_close(kaldi_fbank(silence, 16_000, n_bands), folder.io["silence.fbank"], 1e-5)


# ---------------------------------------------------------------------------------------------------------------- names


def saved(path: Path, **changes: Tensor | None) -> Path:
    """A small checkpoint; None drops a tensor."""
    state: dict[str, Tensor | None] = {**random_network().state_dict(), **changes}
    torch.save({name: tensor for name, tensor in state.items() if tensor is not None}, path)
    return path


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    features = normal(0, "features", 0, (1, 60, SMALL.n_bands))
    counters = {name: None for name in speaker_manifest(SMALL) if name.endswith(BATCHES)}
    network = loaded(SMALL, open_campplus(saved(tmp_path / "a.bin", **counters), SMALL))
    np.testing.assert_array_equal(embed(network, features), embed(random_network(), features))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"head.bn1.running_var": None}, r"missing head\.bn1\.running_var"),
        ({"head.extra": torch.zeros(1)}, r"unknown head\.extra"),
        ({"head.bn1.weight": torch.zeros(5)}, r"head\.bn1\.weight: expected shape \[4\], got \[5\]"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path: Path, change: dict[str, Tensor | None], complaint: str) -> None:
    with pytest.raises(CheckpointError, match=complaint):
        open_campplus(saved(tmp_path / "a.bin", **change), SMALL)


def test_a_value_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    source = open_campplus(saved(tmp_path / "a.bin", **{"head.bn1.bias": torch.full((4,), torch.nan)}), SMALL)
    with pytest.raises(CheckpointError, match=r"head\.bn1\.bias.*not finite"):
        loaded(SMALL, source)


# ------------------------------------------------------------------------------------------------------------ behaviour


def test_the_last_segment_is_averaged_over_its_own_length() -> None:
    x = torch.from_numpy(normal(0, "x", 0, (2, 3, 23)))
    means = segment_means(x, 10)
    assert means.shape == (2, 3, 3)
    torch.testing.assert_close(means[..., 2], x[..., 20:].mean(dim=-1))


@pytest.mark.parametrize("length", [MIN_FRAMES, 19, 20, 21, 40, 57])
def test_any_length_gives_a_finite_vector(length: int) -> None:
    embedding = embed(random_network(), normal(0, "features", length, (1, length, SMALL.n_bands)))
    assert embedding.shape == (1, SMALL.embedding)
    assert np.isfinite(embedding).all()


def test_rows_of_a_batch_do_not_meet() -> None:
    network, features = random_network(), normal(0, "features", 0, (3, 57, SMALL.n_bands))
    together = embed(network, features)
    for row in range(3):
        assert_close(together[row], embed(network, features[row : row + 1])[0], 1e-5)


def golden_network(folder: GoldenFolder) -> Campplus:
    sizes = CampplusConfig.from_config(folder.config)
    own = folder.path / "weights.safetensors"
    if own.is_file():
        return loaded(sizes, Checkpoint.open(own))
    return loaded(sizes, open_campplus(weights_files.campplus(folder.config["weights_sha256"]), sizes))


@pytest.mark.parametrize("folder", folder_params(KIND))
def test_embeddings_are_the_reference(folder: GoldenFolder) -> None:
    network, io = golden_network(folder), folder.io
    assert_close(embed(network, io["trace.input"]), io["trace.embedding"], 1e-4)
    fbank = io["synthetic.fbank"]
    assert_close(embed(network, (fbank - fbank.mean(axis=0))[None]), io["synthetic.embedding"], 1e-4)


@pytest.mark.parametrize("folder", folder_params(KIND))
def test_every_stage_is_the_reference(folder: GoldenFolder) -> None:
    network, io = golden_network(folder), folder.io
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda module, inputs, output: seen.__setitem__(name, output)

    stages = {name.split(".", 1)[1].rpartition(".")[0] for name in io if name.endswith(".meanabs")}
    for stage in stages - {"stats", "dense"}:
        network.get_submodule(stage).register_forward_hook(keep(stage))
    dense = network.xvector.dense
    dense.register_forward_hook(keep("dense"))
    dense.register_forward_pre_hook(lambda module, inputs: seen.__setitem__("stats", inputs[0]))
    embed(network, io["trace.input"])
    assert len(stages) >= 4
    for stage in stages:
        values = seen[stage].numpy()
        assert list(values.shape) == list(io[f"trace.{stage}.shape"])
        assert_close(values.reshape(-1)[:16], io[f"trace.{stage}.first16"], 1e-4)
        assert_close(np.abs(values).mean(), io[f"trace.{stage}.meanabs"], 1e-4)


def test_names_and_shapes_are_those_of_the_official_file() -> None:
    path = Path(__file__).parents[2] / "assets/campplus_state_dict.json"
    official = {name: tuple(shape) for name, shape in json.loads(path.read_text()).items()}
    assert speaker_manifest(CampplusConfig()) == official


@pytest.mark.parametrize("sizes", [SMALL, CampplusConfig()], ids=["small", "official"])
def test_random_weights_keep_the_network_alive(sizes: CampplusConfig) -> None:
    network = random_network(sizes)
    one, other = (embed(network, normal(0, "features", n, (1, 150, sizes.n_bands)))[0] for n in range(2))
    assert np.isfinite(one).all()
    assert 0.02 < one.std() < 50
    cosine = float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))
    assert cosine < 0.9999
