"""Resemblyzer's network: its file, and what comes out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from heartvoice.checkpoints.random_init import RandomCheckpoint
from heartvoice.checkpoints.speaker import speaker_init
from heartvoice.config.presets import SPEAKERS, SpeakerConfig
from heartvoice.errors import CheckpointError
from heartvoice.keyed_random import normal
from heartvoice.models.load import TensorSource, load_module
from heartvoice.models.speaker import Resemblyzer, build_speaker, open_resemblyzer, speaker_manifest
from tests.support import weights_files

SMALL = SpeakerConfig(n_bands=6, hidden=8, num_layers=2, embedding=12)


def loaded(sizes: SpeakerConfig, source: TensorSource) -> Resemblyzer:
    with torch.device("meta"):
        network = build_speaker(sizes)
    load_module(network, source)
    assert isinstance(network, Resemblyzer)
    return network.eval()


def random_network(sizes: SpeakerConfig = SMALL) -> Resemblyzer:
    return loaded(sizes, RandomCheckpoint(speaker_manifest(sizes), 0, speaker_init(sizes)))


def partials(sizes: SpeakerConfig, count: int = 3, length: int = 40) -> Tensor:
    return torch.from_numpy(np.square(normal(0, "features", 0, (count, length, sizes.n_bands))))


def saved(path: Path, state: dict[str, Tensor]) -> Path:
    rest = {"similarity_weight": torch.ones(1), "similarity_bias": torch.zeros(1)}
    torch.save({"step": 7, "model_state": {**rest, **state}, "optimizer_state": {"param_groups": []}}, path)
    return path


@torch.inference_mode()
def test_vectors_have_length_1_and_nothing_negative() -> None:
    embedding = random_network()(partials(SMALL))
    torch.testing.assert_close(torch.linalg.vector_norm(embedding, dim=1), torch.ones(3))
    assert bool((embedding >= 0).all())
    assert not torch.equal(embedding[0], embedding[1])


@torch.inference_mode()
def test_a_projection_without_anything_positive_stays_zero() -> None:
    network = random_network()
    network.linear.bias.sub_(100.0)
    assert torch.equal(network(partials(SMALL)), torch.zeros(3, SMALL.embedding))


@torch.inference_mode()
def test_the_file_is_read_without_what_only_training_uses(tmp_path: Path) -> None:
    network = random_network()
    source = open_resemblyzer(saved(tmp_path / "pretrained.pt", dict(network.state_dict())), SMALL)
    assert source.names == frozenset(speaker_manifest(SMALL))
    assert torch.equal(loaded(SMALL, source)(partials(SMALL)), network(partials(SMALL)))


@pytest.mark.parametrize(
    ("name", "tensor", "complaint"),
    [
        ("linear.bias", None, r"missing linear\.bias"),
        ("lstm.weight_ih_l2", torch.zeros(2), r"unknown lstm\.weight_ih_l2"),
        ("linear.weight", torch.zeros(3, 8), r"linear\.weight: expected shape \[12, 8\], got \[3, 8\]"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path: Path, name: str, tensor: Tensor | None, complaint: str) -> None:
    state = dict(random_network().state_dict())
    state.pop(name, None)
    if tensor is not None:
        state[name] = tensor
    with pytest.raises(CheckpointError, match=complaint):
        open_resemblyzer(saved(tmp_path / "pretrained.pt", state), SMALL)


def test_a_file_without_the_networks_state_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pretrained.pt"
    torch.save({"step": 7}, path)
    with pytest.raises(CheckpointError, match="does not hold what is expected"):
        open_resemblyzer(path)


def test_the_published_file_fits() -> None:
    sizes = SPEAKERS["resemblyzer"]
    assert isinstance(sizes, SpeakerConfig)
    network = loaded(sizes, open_resemblyzer(weights_files.resemblyzer(), sizes))
    assert sum(tensor.numel() for tensor in network.parameters()) == 1_423_616


def test_each_engine_has_its_network() -> None:
    with torch.device("meta"):
        names = [type(build_speaker(sizes)).__name__ for sizes in SPEAKERS.values()]
    assert names == ["Resemblyzer", "Campplus", "Ecapa", "Wavlm"]
