"""ECAPA-TDNN: official names, reference vectors of the network, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from heartvoice.config.presets import EcapaConfig
from heartvoice.errors import CheckpointError
from heartvoice.models.ecapa import Ecapa
from heartvoice.models.load import Checkpoint, load_module, load_network, random_checkpoint
from heartvoice.models.speaker import open_ecapa, speaker_manifest
from tests.support.golden_cases import GoldenFolder, assert_close, folder_params

KIND = "speaker_encoders/ecapa"
SMALL = EcapaConfig(channels=(32, 32, 32, 32, 48), attention_channels=8, lin_neurons=24, se_channels=8)


def loaded(folder: GoldenFolder) -> Ecapa:
    with torch.device("meta"):
        network = Ecapa(EcapaConfig.from_config(folder.config))
    load_module(network, Checkpoint.open(folder.path / "weights.safetensors"))
    return network.eval()


@pytest.mark.parametrize("folder", folder_params(KIND))
@torch.inference_mode()
def test_every_stage_and_the_embedding_are_the_reference(folder: GoldenFolder) -> None:
    network, io = loaded(folder), folder.io
    seen: dict[str, Tensor] = {}
    stages = {f"block{index}": block for index, block in enumerate(network.blocks)}
    for name, stage in {**stages, "mfa": network.mfa, "pooling": network.asp}.items():
        stage.register_forward_hook(lambda _module, _inputs, output, name=name: seen.__setitem__(name, output))
    embedding = network(torch.from_numpy(io["fbank_normalised"]))
    traces = {name.removeprefix("trace.") for name in io if name.startswith("trace.")}
    assert traces == set(seen)
    for name in traces:
        assert_close(seen[name], io[f"trace.{name}"], 2e-4)
    assert_close(embedding, io["embedding"], 2e-4)


@pytest.mark.parametrize("folder", folder_params(KIND))
@torch.inference_mode()
def test_relative_lengths_and_short_utterances_are_the_reference(folder: GoldenFolder) -> None:
    network, io = loaded(folder), folder.io
    batch = network(torch.from_numpy(io["batch.features"]), torch.from_numpy(io["batch.relative_lengths"]))
    assert_close(batch, io["batch.embedding"], 2e-4)
    assert_close(network(torch.from_numpy(io["short.features"])), io["short.embedding"], 2e-4)


def test_names_and_shapes_are_those_of_the_official_file() -> None:
    path = Path(__file__).parents[2] / "assets/ecapa_state_dict.json"
    official = {name: tuple(shape) for name, shape in json.loads(path.read_text()).items()}
    assert speaker_manifest(EcapaConfig()) == official


@pytest.mark.parametrize("folder", folder_params(KIND))
def test_a_file_of_other_sizes_is_refused(folder: GoldenFolder) -> None:
    sizes = EcapaConfig.from_config({**folder.config, "lin_neurons": folder.config["lin_neurons"] + 1})
    with pytest.raises(CheckpointError, match="expected shape"):
        load_module(Ecapa(sizes), Checkpoint.open(folder.path / "weights.safetensors"))


def test_a_published_file_is_read_with_and_without_counters(tmp_path: Path) -> None:
    source = random_checkpoint(SMALL, 0)
    tensors = {name: torch.from_numpy(source.array(name)) for name in speaker_manifest(SMALL)}
    bare = {name: value for name, value in tensors.items() if not name.endswith("num_batches_tracked")}
    for name, saved in {"whole": tensors, "bare": bare}.items():
        torch.save(saved, tmp_path / name)
        opened = open_ecapa(tmp_path / name, SMALL)
        torch.testing.assert_close(
            load_network(SMALL, opened).state_dict()["fc.conv.weight"], tensors["fc.conv.weight"]
        )
    torch.save(tensors | {"classifier.weight": torch.ones(1)}, tmp_path / "more")
    with pytest.raises(CheckpointError, match=r"unknown classifier\.weight"):
        open_ecapa(tmp_path / "more", SMALL)


@torch.inference_mode()
def test_random_weights_tell_inputs_apart() -> None:
    network = load_network(SMALL, random_checkpoint(SMALL, 0))
    assert isinstance(network, Ecapa)
    generator = torch.manual_seed(0)
    shapes, times = torch.randn(6, 3, 80, generator=generator), torch.randn(6, 90, 3, generator=generator)
    vectors = torch.nn.functional.normalize(network(6 * times @ shapes))  # voices: their bands move together
    others = (vectors @ vectors.T)[~torch.eye(6, dtype=torch.bool)]
    assert others.max() < 0.999
    assert network(torch.zeros(1, 90, 80)).isfinite().all()
