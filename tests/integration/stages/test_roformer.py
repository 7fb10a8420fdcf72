"""The RoFormers' engine: windows against the whole, the published loop, residuals, and what it refuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from heartvoice.arrays import Array
from heartvoice.config.presets import PRESETS, SEPARATORS, RoformerConfig, separator_sizes, with_separator
from heartvoice.errors import EngineError, InvalidRequestError
from heartvoice.export.layout import sizes as index_sizes
from heartvoice.keyed_random import normal
from heartvoice.models.load import Checkpoint, load_network, random_checkpoint
from heartvoice.stages.separation.request import Carry, SeparationRequest
from heartvoice.stages.separation.roformer import RoformerPlan
from heartvoice.stages.separation.roformer_chunks import ChunkLoop
from heartvoice.stages.separation.roformer_transform import RoformerTransform
from heartvoice.stages.separation.stage import SeparateStage
from tests.support.golden_cases import GoldenFolder, assert_close
from tests.support.roformers import golden_roformers, golden_sizes
from tests.support.separation import Samples, separate, separate_in_windows

SMALL = RoformerConfig(
    bands=((0, 16),), dim=8, depth=1, dim_head=4, heads=2, stft_n_fft=32, stft_hop_length=8, chunk_size=64
)
SIX = replace(SMALL, stems=SEPARATORS["bs_roformer_sw"].sources)


class Fake:
    """Masks that depend on the place in the chunk, as those of real networks do."""

    def __init__(self, sizes: RoformerConfig) -> None:
        shape = len(sizes.stems), sizes.n_frames, sizes.n_features
        self.masks = np.linspace(-0.9, 0.9, int(np.prod(shape)), dtype=np.float32).reshape(shape)

    def run(self, name: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        assert name == "roformer"
        return {"masks": (self.masks * np.tanh(inputs["features"]))[None]}


class Network:
    """A module as `Networks`."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.module = module

    @torch.inference_mode()
    def run(self, name: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        return {"masks": self.module(torch.from_numpy(inputs["features"])).numpy()}


def mix_of(n_samples: int) -> Samples:
    return 0.3 * normal(n_samples, "mix", 0, (2, n_samples))


@settings(max_examples=40, deadline=None)
@given(
    n_samples=st.integers(1, 300),
    segments_per_window=st.integers(1, 3),
    num_overlap=st.sampled_from([2, 2, 3, 4, 7, 16]),
    sources=st.sampled_from([(), ("vocals",), ("instrumental",), ("instrumental", "vocals")]),
)
def test_windows_give_the_samples_of_the_whole_bit_for_bit(
    n_samples: int, segments_per_window: int, num_overlap: int, sources: tuple[str, ...]
) -> None:
    sizes = replace(SMALL, num_overlap=num_overlap)
    audio, stage = mix_of(n_samples), SeparateStage(Fake(sizes), sizes)
    whole = separate(stage, audio, sources=sources)
    assert whole.shape == (len(sources) or 2, 2, n_samples)
    np.testing.assert_array_equal(separate_in_windows(stage, audio, segments_per_window, sources), whole)


@pytest.mark.parametrize("sources", [(), ("drums", "vocals", "piano")])
def test_windows_of_six_stems_give_the_samples_of_the_whole(sources: tuple[str, ...]) -> None:
    audio, stage = mix_of(333), SeparateStage(Fake(SIX), SIX)
    whole = separate(stage, audio, sources=sources)
    np.testing.assert_array_equal(separate_in_windows(stage, audio, 1, sources), whole)
    every = separate(stage, audio)
    assert len({stem.tobytes() for stem in every}) == 6
    np.testing.assert_array_equal(whole, every[[SIX.sources.index(name) for name in sources or SIX.sources]])


@pytest.mark.parametrize("folder", [pytest.param(folder, id=folder.label) for folder in golden_roformers()])
def test_stems_are_those_of_the_published_loop(folder: GoldenFolder) -> None:
    sizes = golden_sizes(folder)
    sizes = replace(sizes, chunk_size=30 * sizes.stft_hop_length)
    module = load_network(sizes, Checkpoint.open(folder.path / "weights.safetensors"))
    transform, mix = RoformerTransform(sizes), mix_of(70 * sizes.stft_hop_length + 5)

    def published(part: Samples) -> Samples:
        """Stems [S, 2, n] of a chunk; a network for mono separates each channel."""
        found = []
        for channels in np.split(part, 2 // sizes.channels):
            features = transform.features(channels)
            with torch.inference_mode():
                masks = module(torch.from_numpy(features[None])).numpy()[0]
            found.append(transform.separate(features, masks))
        return np.concatenate(found, axis=1)

    loop = ChunkLoop(sizes.chunk_size, sizes.num_overlap, as_published=True)
    parts = [part for part in loop.run(mix, published) if not isinstance(part, Carry)]
    stems = separate(SeparateStage(Network(module), sizes), mix)
    assert_close(stems[: len(sizes.stems)], np.concatenate(parts, axis=-1), 1e-6)
    if sizes.residual:
        assert_close(stems.sum(axis=0), mix, 1e-6)


@pytest.mark.parametrize("name", ["bs_roformer", "bs_roformer_sw", "mel_band_roformer"])
def test_small_networks_separate_and_their_sizes_survive_an_index(name: str) -> None:
    preset = with_separator(PRESETS["tiny"], name)
    sizes = preset.separator
    assert isinstance(sizes, RoformerConfig)
    assert separator_sizes(index_sizes(preset)["separator"]) == sizes
    assert sizes.sources == SEPARATORS[name].sources
    module = load_network(sizes, random_checkpoint(sizes, 0))
    stems = separate(SeparateStage(Network(module), sizes), mix_of(1000))
    assert stems.shape == (len(sizes.sources), 2, 1000)
    assert all(0.01 < np.abs(stem).max() < 3 for stem in stems)


def test_a_source_of_another_engine_is_refused_with_its_name() -> None:
    stage = SeparateStage(Fake(SMALL), SMALL)
    with pytest.raises(InvalidRequestError, match=r"vocals, instrumental \(roformer\), got guitar; .*bs_roformer_sw"):
        list(stage.separate(SeparationRequest(mix_of(9), sources=("guitar",))))


@pytest.mark.parametrize(
    ("n_samples", "request_of", "message"),
    [
        (63, {"more": True}, "more: expected 64 new samples and a multiple of 32, got 63"),
        (90, {"more": True, "carry": np.zeros((2, 2, 32), np.float32)}, "more: expected 64 .* got 90"),
        (32, {"carry": np.zeros((2, 2, 32), np.float32)}, "audio: expected more than the 32 .* carry, got 32"),
        (99, {"carry": np.zeros((2, 2, 31), np.float32)}, r"carry: expected float32 \[2, 2, 32\]"),
    ],
)
def test_a_window_that_does_not_fit_is_refused(n_samples: int, request_of: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        list(SeparateStage(Fake(SMALL), SMALL).separate(SeparationRequest(mix_of(n_samples), **request_of)))


@pytest.mark.parametrize(("chunk_size", "num_overlap"), [(64, 2), (64, 3), (72, 4), (40, 7)])
def test_a_first_window_decides_whether_a_recording_is_reflected(chunk_size: int, num_overlap: int) -> None:
    plan = RoformerPlan(replace(SMALL, chunk_size=chunk_size, num_overlap=num_overlap))
    assert plan.window(0)[1] >= 2 * plan.loop.border
    for n_samples in range(1, 300):
        spans = plan.spans(n_samples)
        assert [span.start for span in spans] == [plan.window(index)[0] for index in range(len(spans))]
        assert all(span.end - span.start > plan.overlap for span in spans[1:])
        assert spans[-1].end == n_samples


def test_masks_of_another_shape_are_the_network_s_error() -> None:
    with pytest.raises(EngineError, match=r"roformer: unexpected masks \[1, 9, 68\]"):
        separate(SeparateStage(Fake(SMALL), replace(SMALL, stems=("vocals", "drums"))), mix_of(9))


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"num_overlap": 1}, "num_overlap: expected 2 to 16, got 1"), ({"chunk_size": 16}, "chunk_size: expected more"),
     ({"chunk_size": 63}, "chunk_size: expected a multiple of 8, got 63")],
)  # fmt: skip
def test_sizes_without_overlapping_chunks_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **changes)
