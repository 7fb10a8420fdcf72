"""A song through the pipeline: the same samples however its codes arrive, and those of one whole decoding."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from heartvoice import keyed_random
from heartvoice.contracts.constants import FRAME_HOP
from heartvoice.contracts.messages import AudioChunk, Codes, CodesChunk, Event, Message, Report
from heartvoice.errors import EngineError, InvalidRequestError, RequestCancelledError
from heartvoice.models.vocabulary import LyricVocabulary
from heartvoice.pipeline.context import JobContext
from heartvoice.pipeline.song_request import SongRequest
from heartvoice.pipeline.song_with_voice import run_song
from heartvoice.pipeline.voice_conversion import VoiceStages
from heartvoice.runtime.networks import Check, never_cancelled
from heartvoice.stages.codec import CodecRequest, CodecStage
from heartvoice.stages.lm.request import LmRequest
from tests.fakes.networks import TorchCodec, text, tiny, torch_codec
from tests.support.cancelling import cancelled_when
from tests.support.pipeline_messages import joined

PRESET = tiny()
ABOUT = {"preset": "tiny", "weights": "random seed=0", "random_weights": True}


@pytest.fixture(scope="module")
def networks() -> TorchCodec:
    return torch_codec(PRESET)


class Stages:
    """A real codec behind an LM that sends given codes in given chunks."""

    def __init__(self, networks: TorchCodec, codes: Codes, chunk: int, delay_s: float = 0.0) -> None:
        self.codec = CodecStage(networks, PRESET.codec)
        self.codes, self.chunk, self.delay_s = codes, chunk, delay_s

    def write_codes(self, request: LmRequest) -> Iterator[Codes]:
        for start in range(0, self.codes.shape[1], self.chunk):
            time.sleep(self.delay_s)
            yield self.codes[:, start : start + self.chunk]

    def decode_window(self, request: CodecRequest) -> tuple[np.ndarray, np.ndarray]:
        return self.codec.decode_window(request)


def codes(n_frames: int) -> Codes:
    return np.random.default_rng(n_frames).integers(0, PRESET.codec.codebook_size, (8, n_frames)).astype(np.int32)


def request(**inputs: object) -> SongRequest:
    base = {"lyrics": text("la"), "codec_window": np.array([93]), "codec_steps": np.array([2]), "seed": np.array([3])}
    return SongRequest.from_inputs(base | {k: np.asarray(v) for k, v in inputs.items()}, PRESET)


def song_messages(wanted: SongRequest, stages: Stages, check: Check = never_cancelled) -> Iterator[Message]:
    context = JobContext(ABOUT, check)
    return run_song(wanted, stages, no_voice_stages, PRESET, context, detect_vocals=True)


def no_voice_stages() -> VoiceStages:
    raise AssertionError("a song without a voice or stems converts nothing")


# 93: the song ends where the window does; 13 + 80 k: it ends where a window's last overlap begins.
@pytest.mark.parametrize("n_frames", [1, 40, 92, 93, 94, 173, 174, 253, 300])
def test_streamed_audio_is_that_of_one_decoding(networks: TorchCodec, n_frames: int) -> None:
    song = codes(n_frames)
    whole = networks.model.detokenize(
        song,
        lambda index: keyed_random.normal(3, "codec", index, (1, 186, PRESET.codec.out_channels)),
        window=93,
        steps=2,
        join="continuous",
    )
    for chunk, delay_s in ((n_frames, 0.0), (7, 0.0005)):
        audio, report = joined(song_messages(request(), Stages(networks, song, chunk, delay_s)))
        assert audio.shape == (2, n_frames * FRAME_HOP)
        assert report["frames"] == n_frames
        np.testing.assert_allclose(audio, whole, atol=1e-4)  # one flipped level would be 0.1: none here


def test_same_samples_whatever_the_chunks(networks: TorchCodec) -> None:
    song = codes(100)
    results = [joined(song_messages(request(), Stages(networks, song, chunk, 0.001)))[0] for chunk in (1, 60, 100)]
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


def test_finished_codes_skip_the_lm_and_give_the_same_song(networks: TorchCodec) -> None:
    song = codes(120)
    made, _ = joined(song_messages(request(), Stages(networks, song, 10)))
    again, report = joined(song_messages(request(codes=song), Stages(networks, song[:, :0], 1)))
    assert np.array_equal(made, again)
    assert report["ended_by"] == "codes"


def test_the_report_has_the_unknown_words_of_a_closed_vocabulary_alone(networks: TorchCodec) -> None:
    closed = SongRequest.from_inputs({"lyrics": text("la LO")}, PRESET, LyricVocabulary(["la"]))
    _, told = joined(song_messages(closed, Stages(networks, codes(3), 3)))
    assert told["unknown_words"] == {"LO": "la"}
    assert told["warnings"] == ["lyrics: not in the model's vocabulary of 1 words: LO (sung as la)"]
    assert told["settings"]["unknown_words"] == "nearest"
    _, open_ = joined(song_messages(request(), Stages(networks, codes(3), 3)))
    assert not {"unknown_words"} & (set(open_) | set(open_["settings"]))


def test_first_audio_comes_before_the_lm_has_finished(networks: TorchCodec) -> None:
    stages = Stages(networks, codes(300), 10, delay_s=0.01)
    n_codes = 0
    for message in song_messages(request(return_codes=[True]), stages):
        if isinstance(message, CodesChunk):
            n_codes += message.codes.shape[1]
        if isinstance(message, AudioChunk):
            break
    assert 93 <= n_codes < 300


def test_codes_and_progress_are_complete(networks: TorchCodec) -> None:
    song = codes(150)
    messages = list(song_messages(request(return_codes=[True]), Stages(networks, song, 11)))
    got = np.concatenate([m.codes for m in messages if isinstance(m, CodesChunk)], axis=1)
    assert np.array_equal(got, song)
    stages = {m.stage: m.done for m in messages if isinstance(m, Event)}
    assert stages == {"lm": 150, "codec": 150}
    assert isinstance(messages[-1], Report)


def test_an_error_in_the_lm_ends_the_song(networks: TorchCodec) -> None:
    class Broken(Stages):
        def write_codes(self, request: LmRequest) -> Iterator[Codes]:
            yield codes(100)
            raise EngineError("no more")

    with pytest.raises(EngineError, match="no more"):
        list(song_messages(request(), Broken(networks, codes(1), 1)))


@pytest.mark.parametrize("code", [-1, PRESET.codec.codebook_size])
def test_codes_that_the_codec_does_not_have_are_the_language_models_fault(networks: TorchCodec, code: int) -> None:
    stages = Stages(networks, np.full((8, 2), code, np.int32), chunk=2)
    with pytest.raises(EngineError, match=rf"heartmula: expected codes in \[0, 256\), got {code} to {code}"):
        list(song_messages(request(), stages))


def test_check_ends_a_song_that_waits_for_codes(networks: TorchCodec) -> None:
    release, calls = threading.Event(), itertools.count()

    class Held(Stages):
        def write_codes(self, request: LmRequest) -> Iterator[Codes]:
            release.wait(300)
            yield from super().write_codes(request)

    check = cancelled_when(lambda: next(calls) >= 2)
    with pytest.raises(RequestCancelledError):
        list(song_messages(request(), Held(networks, codes(2), 1), check))
    release.set()


def test_codes_are_checked() -> None:
    with pytest.raises(InvalidRequestError, match="codes: expected values"):
        request(codes=np.full((8, 3), 300, np.int32))
    with pytest.raises(InvalidRequestError, match="codes: expected at most 3001 frames, got 3002"):
        request(codes=np.zeros((8, 3002), np.int32))
    with pytest.raises(InvalidRequestError, match="codec_window: expected 93 to 372 in steps of 93 frames, got 100"):
        request(codec_window=[100])
