"""The separation stage: apply_model's samples, any length, any windows."""

from __future__ import annotations

import tracemalloc
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from heartvoice.arrays import Array
from heartvoice.config.presets import SeparatorConfig, htdemucs_of
from heartvoice.contracts.constants import MAX_RESPONSE_BYTES
from heartvoice.contracts.messages import StemsChunk
from heartvoice.errors import EngineError, InvalidRequestError, RequestCancelledError
from heartvoice.models.demucs_module import Separator
from heartvoice.models.load import load_network, random_checkpoint
from heartvoice.stages.separation.plan import SeparationPlan
from heartvoice.stages.separation.request import Carry, SeparationRequest
from heartvoice.stages.separation.stage import SeparateStage
from heartvoice.stages.separation.transform import SegmentTransform
from tests.support.cancelling import networks_until
from tests.support.music import band

SIZES = replace(htdemucs_of("tiny"), segment="1/2")
SMALL = replace(SIZES, nfft=64, segment="1/50", depth=1)
"""882 samples a segment: for fakes."""
SEGMENT, STRIDE = SIZES.segment_samples, SIZES.stride_samples


class TorchSeparator:
    """The network as `Networks`."""

    def __init__(self, sizes: SeparatorConfig) -> None:
        module = load_network(sizes, random_checkpoint(sizes, 1))
        assert isinstance(module, Separator)
        self.module = module

    def run(self, name: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        assert name == "htdemucs"
        with torch.inference_mode():
            spectra, waves = self.module.core(*(torch.from_numpy(inputs[key]) for key in ("mix", "spectrum")))
        return {"spectra": spectra.numpy(), "waves": waves.numpy()}


class FakeSeparator:
    """Every source is a filtered mix that also depends on its place in the segment, as real ones do."""

    def __init__(self, sizes: SeparatorConfig, *, fail_at: int = -1) -> None:
        self.n_sources, self.n_calls, self.fail_at = len(sizes.sources), 0, fail_at

    def run(self, name: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        if self.n_calls == self.fail_at:
            raise EngineError("htdemucs: out of memory")
        self.n_calls += 1
        gains = np.arange(1, self.n_sources + 1, dtype=np.float32)[None, :, None, None]
        place = np.linspace(0.5, 1.5, inputs["mix"].shape[-1], dtype=np.float32)
        mix, spectrum = inputs["mix"].astype(np.float32), inputs["spectrum"].astype(np.float32)
        return {"spectra": gains[..., None] * spectrum[:, None], "waves": gains * (mix * place)[:, None]}


@pytest.fixture(scope="module")
def network() -> TorchSeparator:
    return TorchSeparator(SIZES)


def separate(stage: SeparateStage, audio: Any, **options: Any) -> Any:
    pieces = list(stage.separate(SeparationRequest(audio, **options)))
    assert all(isinstance(piece, StemsChunk) for piece in pieces)
    return np.concatenate([piece.stems for piece in pieces if isinstance(piece, StemsChunk)], axis=2)


def error(got: Any, want: Any) -> float:
    assert got.shape == want.shape
    return float(np.linalg.norm(got.astype(np.float64) - want) / np.linalg.norm(want))


def noise(n_samples: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal((2, n_samples)).astype(np.float32) * np.float32(0.1)


# ---------------------------------------------------------------------------------------------------------- apply_model


@pytest.mark.parametrize(
    "n_samples",
    [1, 2, 999, SEGMENT - 1, SEGMENT, SEGMENT + 1, STRIDE, STRIDE + 1, 2 * STRIDE + 1, 3 * SEGMENT + 17],
)
def test_stems_are_those_of_apply_model(network: TorchSeparator, n_samples: int) -> None:
    audio = np.ascontiguousarray(band(4.0)[:, 3000 : 3000 + n_samples])
    want = network.module.separate(torch.from_numpy(audio)[None])[0].numpy()
    stage = SeparateStage(network, SIZES, all_chunks=True)
    assert error(separate(stage, audio), want) <= 1e-5
    # Without the last chunk, all but the samples that it blends are the same, and its blend is all that is missing.
    plan, skipping = SeparationPlan(SIZES), SeparateStage(network, SIZES)
    saved = SeparationPlan(SIZES, all_chunks=True).n_segments(n_samples) - plan.n_segments(n_samples)
    same = n_samples if saved == 0 else (plan.n_segments(n_samples)) * STRIDE
    assert saved in (0, 1)
    assert error(separate(skipping, audio)[..., :same], want[..., :same]) <= 1e-5


def test_a_bag_gives_each_source_by_its_own_network() -> None:
    sizes = replace(SIZES, n_models=4, nfft=1024, depth=3, segment="1/5")
    bag = TorchSeparator(sizes)
    audio = np.ascontiguousarray(band(2.0)[:, : 2 * sizes.segment_samples])
    want = bag.module.separate(torch.from_numpy(audio)[None])[0].numpy()
    assert error(separate(SeparateStage(bag, sizes, all_chunks=True), audio), want) <= 1e-5


def test_silence_stays_finite(network: TorchSeparator) -> None:
    assert np.isfinite(separate(SeparateStage(network, SIZES), np.zeros((2, SEGMENT), np.float32))).all()


def test_transform_is_the_networks(network: TorchSeparator) -> None:
    transform, mix = SegmentTransform(SIZES), band(1.0)[:, :SEGMENT].copy()
    tensor = torch.from_numpy(mix)[None]
    want = network.module.spectrum_of(tensor)[0].numpy()
    spectrum = transform.forward(mix)
    assert error(spectrum, want) <= 1e-6
    inner = network.module.models[0]
    samples = inner._ispec(inner._mask(None, torch.from_numpy(spectrum)[None, None]), SEGMENT)[0].numpy()  # type: ignore[operator]
    assert error(transform.inverse(spectrum[None]), samples) <= 1e-6
    assert error(transform.inverse(spectrum[None])[0, :, 4096:-4096], mix[:, 4096:-4096]) < 0.05  # but for Nyquist


# ------------------------------------------------------------------------------------------------------------ windows


@settings(deadline=None, max_examples=60)
@given(
    n_samples=st.integers(1, 8 * SMALL.segment_samples),
    segments_per_window=st.integers(1, 4),
    all_chunks=st.booleans(),
    sources=st.sampled_from([(), ("vocals",), ("other", "drums")]),
)
def test_windows_give_the_samples_of_the_whole_bit_for_bit(
    n_samples: int, segments_per_window: int, all_chunks: bool, sources: tuple[str, ...]
) -> None:
    audio = noise(n_samples)
    whole_network, window_network = FakeSeparator(SMALL), FakeSeparator(SMALL)
    whole = separate(SeparateStage(whole_network, SMALL, all_chunks=all_chunks), audio, sources=sources)
    stage = SeparateStage(window_network, SMALL, all_chunks=all_chunks)
    carry, parts = None, []
    for span in stage.plan.spans(n_samples, segments_per_window):
        request = SeparationRequest(audio[:, span.start : span.end], span.context, carry, sources, span.more)
        *pieces, last = stage.separate(request)
        carry = last.carry if isinstance(last, Carry) else None
        assert (carry is not None) == span.more
        parts += [piece.stems for piece in [*pieces, last] if isinstance(piece, StemsChunk)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=2), whole)
    assert whole_network.n_calls == window_network.n_calls


def test_a_last_request_of_the_overlap_alone_runs_no_segment() -> None:
    audio, network = noise(SMALL.segment_samples), FakeSeparator(SMALL)
    stage = SeparateStage(network, SMALL)
    whole = separate(stage, audio)
    first, carry = list(stage.separate(SeparationRequest(audio, more=True)))
    assert isinstance(first, StemsChunk)
    assert isinstance(carry, Carry)
    network.n_calls = 0
    rest = separate(stage, audio[:, SMALL.stride_samples :], carry=carry.carry)
    np.testing.assert_array_equal(np.concatenate([first.stems, rest], axis=2), whole)
    assert network.n_calls == 0
    # Fewer samples than the overlap: the recording ended early.
    np.testing.assert_array_equal(
        separate(stage, audio[:, SMALL.stride_samples :][:, :100], carry=carry.carry), rest[..., :100]
    )


def test_spans_cover_a_recording_once() -> None:
    plan = SeparationPlan(htdemucs_of("mid"))
    assert (plan.segment, plan.stride, plan.overlap) == (343_980, 257_985, 85_995)
    spans = plan.spans(30 * 44_100)
    assert plan.n_segments(30 * 44_100) == len(spans) == 5
    assert SeparationPlan(htdemucs_of("mid"), all_chunks=True).n_segments(30 * 44_100) == 6
    assert [span.more for span in spans] == [True] * 4 + [False]
    assert spans[0].start == spans[0].context == 0
    for before, after in pairwise(spans):
        assert before.end - plan.overlap == after.start + after.context
    assert spans[-1].end == 30 * 44_100
    assert spans[-1].context == (plan.segment - (30 * 44_100 - 4 * plan.stride)) // 2


# -------------------------------------------------------------------------------------------------------------- pieces


def test_pieces_are_contiguous_and_fit_a_response() -> None:
    sizes = replace(SMALL, segment="6")
    stage, audio = SeparateStage(FakeSeparator(sizes), sizes), noise(3 * sizes.segment_samples)
    at = 0
    for piece in stage.separate(SeparationRequest(audio)):
        assert isinstance(piece, StemsChunk)
        assert piece.start == at
        assert piece.stems.dtype == np.float32
        assert piece.stems.flags.c_contiguous
        assert 0 < piece.stems.nbytes <= MAX_RESPONSE_BYTES
        at += piece.stems.shape[2]
    assert at == audio.shape[1]


def test_wanted_sources_come_in_the_order_asked_for() -> None:
    stage, audio = SeparateStage(FakeSeparator(SMALL), SMALL), noise(2000)
    everything = separate(stage, audio)
    np.testing.assert_array_equal(separate(stage, audio, sources=("vocals", "bass")), everything[[3, 1]])


def test_memory_does_not_grow_with_the_recording() -> None:
    stage = SeparateStage(FakeSeparator(SMALL), SMALL)

    def peak(n_samples: int) -> int:
        request = SeparationRequest(noise(n_samples))
        tracemalloc.start()
        for _ in stage.separate(request):
            pass
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most - n_samples  # the check for NaN holds a flag for each sample and channel

    peak(1000)
    assert peak(100 * SMALL.segment_samples) < 2 * peak(10 * SMALL.segment_samples) + 2 * 90 * SMALL.segment_samples


# ------------------------------------------------------------------------------------------------- cancel and bad input


def test_cancelling_stops_before_the_next_segment() -> None:
    network = FakeSeparator(SMALL)
    answers = iter([False, False, True])
    stage = SeparateStage(networks_until(network, lambda: next(answers)), SMALL)
    stream = stage.separate(SeparationRequest(noise(6 * SMALL.segment_samples)))
    with pytest.raises(RequestCancelledError):
        list(stream)
    assert network.n_calls == 2


def test_a_failing_network_fails_the_request() -> None:
    network = FakeSeparator(SMALL, fail_at=1)
    stream = SeparateStage(network, SMALL).separate(SeparationRequest(noise(3 * SMALL.segment_samples)))
    assert isinstance(next(stream), StemsChunk)
    with pytest.raises(EngineError, match="out of memory"):
        list(stream)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"audio": np.zeros((1, 100), np.float32)}, r"audio: expected float32 \[2, sample\], got float32 \[1, 100\]"),
        ({"audio": np.zeros((2, 100))}, r"audio: expected float32 \[2, sample\], got float64"),
        ({"audio": np.zeros((2, 0), np.float32)}, "context: expected 0 <= context < 0 samples, got 0"),
        ({"audio": np.full((2, 9), np.nan, np.float32)}, "audio: expected finite values"),
        ({"context": 100}, "context: expected 0 <= context < 100 samples, got 100"),
        ({"context": -1}, "context: expected 0 <= context"),
        ({"context": 5}, "carry: missing, expected with a context of 5 samples"),
        (
            {"sources": ("vocals", "piano")},
            r"bass, other, vocals \(htdemucs\), got piano; a server has them after `.* --separator bs_roformer_sw`$",
        ),
        ({"sources": ("instrumental",)}, r"got instrumental; a server has them after `.* --separator spleeter` or "),
        ({"sources": ("vocals", "vocals")}, "sources: expected different ones"),
        ({"carry": np.zeros((4, 2, 7), np.float32)}, r"carry: expected float32 \[4, 2, 221\], got float32 \[4, 2, 7\]"),
        ({"more": True}, "more: expected 882 new samples and a multiple of 661, got 100"),
        (
            {"audio": np.zeros((2, 300), np.float32), "carry": np.zeros((4, 2, 221), np.float32)},
            "context: expected at least 291 samples, got 0",
        ),
    ],
)
def test_a_wrong_request_is_refused_before_any_network_runs(changes: dict[str, Any], message: str) -> None:
    network = FakeSeparator(SMALL)
    request = replace(SeparationRequest(np.zeros((2, 100), np.float32)), **changes)
    with pytest.raises(InvalidRequestError, match=message):
        SeparateStage(network, SMALL).separate(request)
    assert network.n_calls == 0


def test_a_segment_shorter_than_its_padding_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="segment: expected more than"):
        SegmentTransform(replace(SIZES, segment="1/50"))
