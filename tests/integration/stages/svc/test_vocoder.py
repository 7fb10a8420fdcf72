"""The vocoder's stage: chunks against one call, the context that they hear, and refusals."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import torch

from heartvoice.config.svc import BigvganConfig
from heartvoice.contracts.graphs import VOCODER_FRAME
from heartvoice.errors import InvalidRequestError, RequestCancelledError
from heartvoice.keyed_random import bits
from heartvoice.stages.svc.vocoder import VOCODER_CHUNK, VocodeStage, context_frames
from tests.support.cancelling import networks_until
from tests.support.vocoders import SMALL, OneNetwork, log_mel, vocoder

SHAPES = {
    "small": SMALL,
    "official rates": replace(BigvganConfig(), num_mels=4, upsample_initial_channel=64),
    "four stages": replace(
        BigvganConfig(), num_mels=4, upsample_initial_channel=16, upsample_rates=(8, 8, 4, 2),
        upsample_kernel_sizes=(16, 16, 8, 4),
    ),
    "touching kernels": replace(SMALL, upsample_rates=(2, 5), upsample_kernel_sizes=(2, 5)),
    "long first block": replace(
        SMALL, resblock_kernel_sizes=(11, 3), resblock_dilation_sizes=((1, 7), (1, 1, 2)), upsample_rates=(2, 2),
        upsample_kernel_sizes=(4, 8),
    ),
}  # fmt: skip
ALL = pytest.mark.parametrize("name", SHAPES)


@lru_cache(maxsize=8)
def network_of(name: str) -> OneNetwork:
    network = vocoder(SHAPES[name])

    @torch.inference_mode()
    def run(mel: np.ndarray) -> np.ndarray:
        audio: np.ndarray = network(torch.from_numpy(mel)).numpy()
        return audio

    return OneNetwork(run)


def heard(name: str, at: int, n_frames: int) -> list[int]:
    """Frames whose samples depend on frame `at`: NaN spreads to all that it reaches, however little weight it has."""
    mel = log_mel(SHAPES[name], n_frames)
    mel[:, :, at] = np.nan
    audio = network_of(name).run("vocoder", {"mel": mel})["audio"]
    return [int(frame) for frame in np.flatnonzero(np.isnan(audio.reshape(n_frames, -1)).any(axis=1))]


@ALL
def test_the_context_is_exactly_what_reaches_a_frame(name: str) -> None:
    past, future = context_frames(SHAPES[name])
    at, n_frames = future + 3, past + future + 8
    assert heard(name, at, n_frames) == list(range(at - future, at + past + 1))


def test_the_official_network_hears_21_frames_on_each_side() -> None:
    assert context_frames(BigvganConfig()) == (21, 21)
    assert VOCODER_CHUNK + sum(context_frames(BigvganConfig())) <= VOCODER_FRAME.max


@ALL
@pytest.mark.parametrize("seed", range(3))
def test_chunks_equal_one_call_to_rounding(name: str, seed: int) -> None:
    sizes, draw = SHAPES[name], np.random.Generator(bits(seed, "chunks", 0))
    n_frames, chunk = int(draw.integers(1, 90)), int(draw.integers(1, 40))
    mel = log_mel(sizes, n_frames, seed)
    whole = network_of(name).run("vocoder", {"mel": mel})["audio"][0, 0]
    found = VocodeStage(network_of(name), sizes, chunk_frames=chunk).decode(mel[0])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, whole, rtol=0, atol=2e-6 * np.abs(whole).max())


def test_less_context_is_heard() -> None:
    """The comparison above would notice: with half of the context, chunks differ from one call."""
    mel, network = log_mel(SMALL, 60), network_of("small")
    whole = network.run("vocoder", {"mel": mel})["audio"][0, 0]
    stage = VocodeStage(network, SMALL, chunk_frames=10)
    stage._past, stage._future = 1, 1
    assert np.abs(stage.decode(mel[0]) - whole).max() > 1e-3 * np.abs(whole).max()


def test_calls_are_bounded_and_of_like_length() -> None:
    sizes = SMALL
    network = OneNetwork(lambda mel: np.zeros((1, 1, mel.shape[2] * sizes.hop), np.float32))
    VocodeStage(network, sizes, chunk_frames=100).decode(log_mel(sizes, 1001)[0])
    context = sum(context_frames(sizes))
    assert len(network.lengths) == 11
    assert max(network.lengths) <= 91 + context + 1
    assert min(network.lengths[1:-1]) >= max(network.lengths) - 1


def test_memory_beside_the_samples_does_not_grow_with_the_length() -> None:
    network = OneNetwork(lambda mel: np.zeros((1, 1, mel.shape[2] * SMALL.hop), np.float32))
    stage = VocodeStage(network, SMALL, chunk_frames=200)
    growth = []
    for n_frames in (2_000, 20_000):
        mel = np.zeros((SMALL.num_mels, n_frames), np.float32)
        tracemalloc.start()
        for _ in stage.stream(mel):
            pass
        growth.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert growth[1] < 2 * growth[0]  # ten times the frames; other threads of the process allocate, too


def test_pieces_are_streamed_in_order() -> None:
    mel = log_mel(SMALL, 50)[0]
    stage = VocodeStage(network_of("small"), SMALL, chunk_frames=20)
    pieces = list(stage.stream(mel))
    assert [piece.size for piece in pieces] == [16 * SMALL.hop, 17 * SMALL.hop, 17 * SMALL.hop]
    np.testing.assert_array_equal(np.concatenate(pieces), stage.decode(mel))


def test_cancellation_is_looked_at_before_every_chunk() -> None:
    network = OneNetwork(lambda mel: np.zeros((1, 1, mel.shape[2] * SMALL.hop), np.float32))
    stage = VocodeStage(networks_until(network, lambda: len(network.lengths) == 2), SMALL, chunk_frames=10)
    with pytest.raises(RequestCancelledError):
        stage.decode(log_mel(SMALL, 50)[0])
    assert len(network.lengths) == 2


def test_a_stream_refuses_frames_before_it_is_read() -> None:
    with pytest.raises(InvalidRequestError):
        VocodeStage(network_of("small"), SMALL).stream(np.zeros((7, 5), np.float32))


@pytest.mark.parametrize(
    ("mel", "complaint"),
    [
        (np.zeros((8, 0), np.float32), r"mel: expected float32 \[8, at least 1\], got float32 \[8, 0\]"),
        (np.zeros((7, 5), np.float32), r"got float32 \[7, 5\]"),
        (np.zeros((1, 8, 5), np.float32), r"got float32 \[1, 8, 5\]"),
        (np.zeros((8, 5)), r"got float64 \[8, 5\]"),
        (np.full((8, 5), np.nan, np.float32), "mel"),
    ],
)
def test_frames_that_do_not_fit_are_refused(mel: np.ndarray, complaint: str) -> None:
    with pytest.raises(InvalidRequestError, match=complaint):
        VocodeStage(network_of("small"), SMALL).decode(mel)
