"""The vocoder's graph against its module, the reference and itself in chunks; the style encoder's graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import onnx
import pytest
import torch

from heartvoice.checkpoints.bigvgan import RandomBigvgan, filter_taps
from heartvoice.checkpoints.random_init import RandomCheckpoint
from heartvoice.checkpoints.speaker import speaker_init
from heartvoice.config.presets import CampplusConfig
from heartvoice.config.svc import BigvganConfig
from heartvoice.contracts.graphs import SVC_STYLE, VOCODER
from heartvoice.errors import CheckpointError
from heartvoice.export.layout import Precision
from heartvoice.export.parity import Parity
from heartvoice.export.parity_vocoder import compare_style, compare_vocoder
from heartvoice.export.style_graph import build_svc_style
from heartvoice.export.vocoder_graph import build_vocoder, phases
from heartvoice.export.writer import GRAPH_FILE, write_graph
from heartvoice.keyed_random import normal
from heartvoice.models.bigvgan import bigvgan_manifest
from heartvoice.models.campplus import Campplus
from heartvoice.models.load import TensorSource, load_module
from heartvoice.models.speaker import open_campplus, speaker_manifest
from heartvoice.runtime.engines import OnnxEngine
from heartvoice.stages.svc.vocoder import VocodeStage
from tests.support import weights_files
from tests.support.golden_cases import GoldenFolder, assert_close, folder_params
from tests.support.graphs import TINY, engine_of
from tests.support.vocoders import SMALL, OneNetwork, golden, log_mel, random_source, vocoder, weight_norm_names

FOLDERS = folder_params("seed_vc/bigvgan")
STYLE = CampplusConfig(
    n_bands=16, embedding=24, head_channels=4, init_channels=16, growth=4, bottleneck=16, blocks=(2, 3),
    dilations=(1, 2), segment_frames=10,
)  # fmt: skip


@lru_cache(maxsize=4)
def small_engine() -> OnnxEngine:
    return engine_of(build_vocoder(SMALL, random_source(SMALL)), Path(mkdtemp()))


@lru_cache(maxsize=4)
def golden_engine(folder: GoldenFolder) -> OnnxEngine:
    return engine_of(build_vocoder(*golden(folder)), Path(mkdtemp()))


def compared(sizes: BigvganConfig, source: TensorSource, folder: Path, precision: Precision = "fp32") -> Parity:
    parity = Parity("whole")
    engine = engine_of(build_vocoder(sizes, source, precision), folder)
    compare_vocoder(engine, vocoder(sizes, source), TINY, parity)
    parity.check(VOCODER.name, precision)
    return parity


# --------------------------------------------------------------------------------------------------------------- golden


@pytest.mark.parametrize("folder", FOLDERS)
def test_reference_in_chunks_is_the_reference(folder: GoldenFolder) -> None:
    sizes, engine = golden(folder)[0], golden_engine(folder)
    network = OneNetwork(lambda mel: engine.run({"mel": mel})["audio"].astype(np.float32))
    for name, wave in (("mel", "wave"), ("mel_loud", "wave_loud")):
        for chunk in (5, 12):
            found = VocodeStage(network, sizes, chunk_frames=chunk).decode(folder.io[name][0])
            assert_close(found, folder.io[wave][0, 0], 2e-5)


# --------------------------------------------------------------------------------------------------------------- parity


def test_the_graph_is_its_module(tmp_path: Path) -> None:
    assert compared(SMALL, random_source(SMALL), tmp_path).errors["audio"] < 5e-6


def test_weights_with_weight_norm_make_the_same_graph(tmp_path: Path) -> None:
    source = RandomBigvgan(weight_norm_names(bigvgan_manifest(SMALL)), 0, SMALL)
    assert compared(SMALL, source, tmp_path).errors["audio"] < 5e-6


def test_the_half_precision_graph_is_close(tmp_path: Path) -> None:
    assert 1e-6 < compared(SMALL, random_source(SMALL), tmp_path, "fp16").errors["audio"] < 2e-2


def test_a_graph_of_other_weights_is_refused() -> None:
    parity = Parity("whole")
    compare_vocoder(small_engine(), vocoder(SMALL, random_source(SMALL, 1)), TINY, parity)
    assert parity.errors["audio"] > 1e-2


def test_the_filters_in_the_file_are_the_ones_used(tmp_path: Path) -> None:
    """Each activation has its own pair; another checkpoint's need not be equal, nor symmetric."""

    class Skewed(RandomBigvgan):
        def _pieces(self, name: str) -> Iterator[np.ndarray]:
            skew = np.linspace(0.5, 1.5, 12, dtype=np.float32) ** (1 + len(name) % 3)
            for piece in super()._pieces(name):
                yield piece * skew if name.endswith("filter") else piece

    source = Skewed(bigvgan_manifest(SMALL), 0, SMALL)
    assert compared(SMALL, source, tmp_path).errors["audio"] < 5e-6


def test_extreme_snakes_stay_exact(tmp_path: Path) -> None:
    """Amplitudes and frequencies from a thousandth to a thousand: what is folded must not lose digits."""

    class Extreme(RandomBigvgan):
        def _pieces(self, name: str) -> Iterator[np.ndarray]:
            for piece in super()._pieces(name):
                snake = name.endswith((".alpha", ".beta"))
                yield np.linspace(-7, 7, piece.size, dtype=np.float32) if snake else piece

    sizes = replace(SMALL, upsample_rates=(2,), upsample_kernel_sizes=(4,), resblock_dilation_sizes=((1,), (1,)))
    source = Extreme(bigvgan_manifest(sizes), 0, sizes)
    engine = engine_of(build_vocoder(sizes, source), tmp_path)
    mel = log_mel(sizes, 40)
    with torch.inference_mode():
        exact = vocoder(sizes, source).double()(torch.from_numpy(mel).double()).numpy()
        single = vocoder(sizes, source)(torch.from_numpy(mel)).numpy()
    found = engine.run({"mel": mel})["audio"]
    assert np.abs(found - exact).max() < 2 * np.abs(single - exact).max() + 1e-6


@pytest.mark.parametrize("n_frames", [1, 2, 3, 11])
def test_any_length_and_batch_has_its_edges_right(n_frames: int) -> None:
    mel = log_mel(SMALL, n_frames, batch=2)
    with torch.inference_mode():
        want = vocoder(SMALL)(torch.from_numpy(mel)).numpy()
    found = small_engine().run({"mel": mel})["audio"]
    assert found.shape == (2, 1, n_frames * SMALL.hop)
    assert np.abs(found - want).max() < 5e-6 * np.abs(want).max()


def test_phases_are_the_filter_on_interleaved_samples() -> None:
    taps, samples = filter_taps(), normal(0, "samples", 0, (64,))
    even, odd = phases(taps)
    direct = [taps @ samples[2 * n - 5 : 2 * n + 7] for n in range(4, 28)]
    split = [even @ samples[0::2][n - 3 : n + 4] + odd @ samples[1::2][n - 3 : n + 4] for n in range(4, 28)]
    np.testing.assert_allclose(split, direct, rtol=1e-5)


# ---------------------------------------------------------------------------------------------------------------- bytes


def test_two_exports_are_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        write_graph(build_vocoder(SMALL, random_source(SMALL)), tmp_path / name)
    one, other = ((tmp_path / name / GRAPH_FILE).read_bytes() for name in "ab")
    assert one == other


def test_the_graph_has_the_contract_s_tensors_and_no_slow_node(tmp_path: Path) -> None:
    write_graph(build_vocoder(SMALL, random_source(SMALL)), tmp_path)
    graph = onnx.load(tmp_path / GRAPH_FILE).graph
    assert [value.name for value in graph.input] == [spec.name for spec in VOCODER.inputs]
    assert [value.name for value in graph.output] == [spec.name for spec in VOCODER.outputs]
    dims = [dim.dim_param or dim.dim_value for dim in graph.input[0].type.tensor_type.shape.dim]
    assert dims == ["batch", SMALL.num_mels, "vocoder_frame"]
    kinds = Counter(node.op_type for node in graph.node)
    assert kinds["Sin"] == 2 * 2 * (2 + 1) + 1  # one for each activation
    assert kinds["ConvTranspose"] == len(SMALL.upsample_rates)  # none for a filter
    assert not {"Pow", "Div", "Exp"} & set(kinds)


def test_sizes_that_do_not_fit_are_refused() -> None:
    sizes = replace(SMALL, upsample_kernel_sizes=(8, 4))
    with pytest.raises(CheckpointError, match="vocoder: upsample_kernel_sizes"):
        build_vocoder(sizes, random_source(SMALL))


# ---------------------------------------------------------------------------------------------------------------- style


def style_of(sizes: CampplusConfig, source: TensorSource) -> Campplus:
    with torch.device("meta"):
        network = Campplus(sizes)
    load_module(network, source)
    network.eval()
    return network


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_style_graph_is_its_module(precision: Precision, tmp_path: Path) -> None:
    source = RandomCheckpoint(speaker_manifest(STYLE), 0, speaker_init(STYLE))
    parity = Parity("whole")
    engine = engine_of(build_svc_style(STYLE, source, precision), tmp_path)
    compare_style(engine, style_of(STYLE, source), TINY, parity)
    parity.check(SVC_STYLE.name, precision)
    assert parity.errors["embedding"] > 0


def test_the_style_graph_has_its_own_contract(tmp_path: Path) -> None:
    source = RandomCheckpoint(speaker_manifest(STYLE), 0, speaker_init(STYLE))
    write_graph(build_svc_style(STYLE, source), tmp_path)
    graph = onnx.load(tmp_path / GRAPH_FILE).graph
    assert graph.name == SVC_STYLE.name
    (features,), (style,) = graph.input, graph.output
    assert (features.name, style.name) == (SVC_STYLE.inputs[0].name, SVC_STYLE.outputs[0].name)
    dims = [dim.dim_param or dim.dim_value for dim in features.type.tensor_type.shape.dim]
    assert dims == ["batch", "svc_style_frame", STYLE.n_bands]


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
