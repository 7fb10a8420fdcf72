"""WavLM: official names, reference vectors of both kinds of norm, files, and random weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from heartvoice.checkpoints.safetensors_reader import canonical
from heartvoice.config.presets import WavlmConfig
from heartvoice.errors import CheckpointError
from heartvoice.models.load import Checkpoint, load_network, random_checkpoint
from heartvoice.models.speaker import open_wavlm, speaker_manifest
from heartvoice.models.wavlm import Wavlm, distance_buckets
from tests.support.golden_cases import GoldenFolder, assert_close, folder_params
from tests.support.releases import WAVLM, write_wavlm

FOLDERS = pytest.mark.parametrize(
    "folder", folder_params("speaker_encoders/wavlm") + folder_params("speaker_encoders/wavlm_layer_norm")
)


def loaded(folder: GoldenFolder) -> Wavlm:
    network = load_network(WavlmConfig.from_config(folder.config), Checkpoint.open(folder.path / "weights.safetensors"))
    assert isinstance(network, Wavlm)
    return network


@FOLDERS
@torch.inference_mode()
def test_every_stage_and_the_embeddings_are_the_reference(folder: GoldenFolder) -> None:
    network, io = loaded(folder), folder.io
    seen: dict[str, Tensor] = {}
    body = network.wavlm
    body.feature_extractor.register_forward_hook(lambda _m, _i, output: seen.__setitem__("conv_features", output))
    body.encoder.register_forward_hook(
        lambda _m, _i, states: seen.update({f"hidden{index}": state for index, state in enumerate(states)})
    )
    embedding = network(torch.from_numpy(io["wave_16k"])[..., None])
    traces = {name.removeprefix("trace.") for name in io if name.startswith("trace.")}
    assert traces == set(seen)
    for name in traces:
        assert_close(seen[name], io[f"trace.{name}"], 1e-4)
    assert_close(embedding, io["embedding"], 1e-4)
    normalised = network(torch.from_numpy(io["wave_zero_mean_unit_variance"])[..., None])
    assert_close(normalised, io["embedding_of_normalised"], 1e-4)


@FOLDERS
@torch.inference_mode()
def test_waves_of_unequal_lengths_are_the_reference(folder: GoldenFolder) -> None:
    io = folder.io
    lengths = torch.from_numpy(io["batch.attention_mask"].sum(axis=1))
    assert_close(loaded(folder)(torch.from_numpy(io["batch.wave"])[..., None], lengths), io["batch.embedding"], 1e-4)


def test_names_and_shapes_are_those_of_the_official_file() -> None:
    path = Path(__file__).parents[2] / "assets/wavlm_state_dict.json"
    official = {canonical(name): tuple(shape) for name, shape in json.loads(path.read_text()).items()}
    with torch.device("meta"):
        network = Wavlm(WavlmConfig())
    read = {name: shape for name, shape in official.items() if not network.never_read(name)}
    assert speaker_manifest(WavlmConfig()) == read
    assert sorted(official.keys() - read.keys()) == [
        "classifier.bias", "classifier.weight", "objective.weight", "wavlm.masked_spec_embed"
    ]  # fmt: skip


@FOLDERS
def test_a_file_of_other_sizes_is_refused(folder: GoldenFolder) -> None:
    sizes = WavlmConfig.from_config({**folder.config, "xvector_output_dim": folder.config["xvector_output_dim"] + 1})
    with pytest.raises(CheckpointError, match="expected shape"):
        load_network(sizes, Checkpoint.open(folder.path / "weights.safetensors"))


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@torch.inference_mode()
def test_a_published_folder_is_read(tmp_path: Path) -> None:
    write_wavlm(tmp_path, do_normalize=True)
    sizes, source = open_wavlm(tmp_path)
    assert sizes == replace(WAVLM, do_normalize=True)
    network = load_network(sizes, source)
    one, other = (network(torch.randn(1, 8000, 1, generator=torch.manual_seed(seed)))[0] for seed in range(2))
    assert one.isfinite().all()
    assert torch.nn.functional.cosine_similarity(one, other, dim=0) < 0.9999


def test_the_shortest_wave_is_heard_and_a_shorter_one_has_no_deviation() -> None:
    network = load_network(WAVLM, random_checkpoint(WAVLM, 0))
    assert WAVLM.least_samples == 5200
    with torch.inference_mode():
        assert network(torch.randn(1, 5200, 1)).isfinite().all()
        with pytest.warns(UserWarning, match="degrees of freedom"):
            assert not network(torch.randn(1, 5199, 1)).isfinite().all()


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("config.json", {"hidden_act": "relu"}, "hidden_act: expected gelu, got relu"),
        ("config.json", {"use_weighted_layer_sum": False}, "use_weighted_layer_sum: expected True, got False"),
        ("config.json", {"hidden_size": 20}, "pytorch_model.bin: .*expected shape"),
        ("config.json", {"hidden_size": 18}, "hidden_size: expected a multiple of 2 and 4, got 18"),
        ("config.json", {"num_hidden_layers": 1}, "unknown .*layers.1"),
        ("preprocessor_config.json", {"do_normalize": None}, "do_normalize: expected true or false, got None"),
        ("preprocessor_config.json", {"sampling_rate": 8000}, "sampling_rate: expected 16000, got 8000"),
    ],
)
def test_files_that_do_not_fit_are_refused(file: str, changes: dict[str, object], message: str, tmp_path: Path) -> None:
    write_wavlm(tmp_path)
    edit(tmp_path / file, **changes)
    with pytest.raises(CheckpointError, match=message):
        open_wavlm(tmp_path)


def test_a_missing_configuration_is_named(tmp_path: Path) -> None:
    write_wavlm(tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json: cannot be read"):
        open_wavlm(tmp_path)


def test_near_distances_have_buckets_of_their_own_and_far_ones_share() -> None:
    buckets = distance_buckets(WavlmConfig(), 1000)
    behind, ahead = buckets[:999][::-1], buckets[1000:]
    np.testing.assert_array_equal(behind[:79], np.arange(1, 80))
    np.testing.assert_array_equal(ahead, behind + 160)
    assert buckets[999] == 0
    assert behind[799] == behind[-1] == 159
    assert np.all(np.diff(behind) >= 0)
