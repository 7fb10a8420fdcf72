"""Songs with a voice and songs with stems, over stages that know what is sung."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from heartvoice.audio.dsp import resample
from heartvoice.config.presets import PRESETS, with_separator
from heartvoice.contracts.constants import (
    CODES_PER_UNIT,
    FRAME_HOP,
    LATENTS_PER_FRAME,
    MAX_RESPONSE_BYTES,
    MIX_STEM_NAMES,
    SAMPLE_RATE_HZ,
    STEM_RATE_HZ,
)
from heartvoice.contracts.messages import AudioChunk, Codes, CodesChunk, Event, Message, Report, StemsChunk
from heartvoice.errors import EngineError, InvalidRequestError, RequestCancelledError
from heartvoice.models.heartcodec.windows import WindowPlan
from heartvoice.pipeline.context import JobContext
from heartvoice.pipeline.song_request import SongRequest
from heartvoice.pipeline.song_with_voice import run_song
from heartvoice.stages.codec import CodecRequest
from heartvoice.stages.lm.request import LmRequest
from heartvoice.stages.separation.request import SeparationRequest
from heartvoice.stages.svc.request import ConversionRequest, ConvertedChunk
from tests.fakes.networks import text
from tests.support import music
from tests.support.cancelling import cancelled_when
from tests.support.voice_stages import LIVE, Oracle, voice_inputs

PRESET = with_separator(PRESETS["tiny"], "htdemucs")
N_FRAMES = 230
SECONDS = N_FRAMES * FRAME_HOP / SAMPLE_RATE_HZ
ABOUT = {"preset": "tiny", "weights": "random seed=0", "random_weights": True}


class Written:
    """An LM and a codec that make a known song; a `pipeline.SongStages`."""

    def __init__(self, song: np.ndarray, *, chunk: int = 7, delay_s: float = 0.0) -> None:
        self.song, self.chunk, self.delay_s = song, chunk, delay_s
        self.n_windows = 0
        self.ended = threading.Event()

    def write_codes(self, request: LmRequest) -> Iterator[Codes]:
        for start in range(0, N_FRAMES, self.chunk):
            time.sleep(self.delay_s)
            yield np.zeros((8, min(self.chunk, N_FRAMES - start)), np.int32)
        self.ended.set()

    def decode_window(self, request: CodecRequest) -> tuple[np.ndarray, np.ndarray]:
        self.n_windows += 1
        n_codes = request.codes.shape[1]
        start = WindowPlan(n_codes).start(request.window_index) * FRAME_HOP
        audio = np.zeros((2, n_codes * FRAME_HOP), np.float32)
        known = self.song[:, start : start + audio.shape[1]]
        audio[:, : known.shape[1]] = known
        return audio, np.zeros((LATENTS_PER_FRAME * n_codes, PRESET.codec.out_channels), np.float32)


@pytest.fixture(scope="module")
def vocals() -> np.ndarray:
    return music.song(SECONDS)[1]


@pytest.fixture(scope="module")
def band() -> np.ndarray:
    return music.song(SECONDS)[2]


@pytest.fixture(scope="module")
def song(vocals: np.ndarray, band: np.ndarray) -> np.ndarray:
    return resample(band + vocals, STEM_RATE_HZ, SAMPLE_RATE_HZ)[:, : N_FRAMES * FRAME_HOP]


def messages(stages: Written, oracle: Oracle, **inputs: np.ndarray) -> Iterator[Message]:
    base = {"lyrics": text("la"), "codec_window": np.array([CODES_PER_UNIT])}
    request = SongRequest.from_inputs(base | inputs, PRESET)
    return run_song(request, stages, lambda: oracle, PRESET, JobContext(ABOUT), detect_vocals=True)


def joined(stream: Iterator[Message]) -> tuple[np.ndarray, np.ndarray | None, dict[str, Any]]:
    """Audio, stems if there are any, and the report; pieces are checked to go on where the last one ended."""
    audio, stems = list[np.ndarray](), list[np.ndarray]()
    report: dict[str, Any] = {}
    at = stems_at = 0
    for message in stream:
        assert not report, "nothing follows the report"
        if isinstance(message, AudioChunk):
            assert message.start == at
            at += message.audio.shape[1]
            audio.append(message.audio)
        elif isinstance(message, StemsChunk):
            assert message.start == stems_at
            assert message.stems.nbytes <= MAX_RESPONSE_BYTES
            stems_at += message.stems.shape[2]
            stems.append(message.stems)
        elif isinstance(message, Report):
            report = dict(message.raw)
    return np.concatenate(audio, axis=1), np.concatenate(stems, axis=2) if stems else None, report


@pytest.mark.parametrize("more", [{}, LIVE], ids=["exact", "live"])
def test_a_converter_that_returns_its_input_gives_the_song_back(
    song: np.ndarray, vocals: np.ndarray, more: dict[str, np.ndarray]
) -> None:
    oracle = Oracle(vocals)
    audio, stems, report = joined(messages(Written(song), oracle, **voice_inputs(), **more))
    assert stems is None
    assert audio.shape == song.shape
    assert float(np.abs(audio - song).max()) <= 1e-5
    assert oracle.n_converted == (oracle.n_separated if more else 1)
    assert (report["converted"], report["frames"], report["ended_by"]) == (True, N_FRAMES, "eos")
    assert report["samples"] == song.shape[1]
    assert report["svc"] == {"engine": "identity"}
    settings = report["settings"]
    assert (settings["live"], settings["codec_window"], settings["auto_pitch"]) == (bool(more), 93, "octave")
    timings = report["timings"]
    assert {"lm_s", "codec_s", "separation_s", "conversion_s", "mix_s", "first_audio_s", "total_s"} <= set(timings)


@pytest.mark.parametrize("more", [{}, LIVE], ids=["exact", "live"])
def test_samples_do_not_depend_on_how_the_codes_come(
    song: np.ndarray, vocals: np.ndarray, more: dict[str, np.ndarray]
) -> None:
    inputs = voice_inputs() | more
    first, _, _ = joined(messages(Written(song, chunk=N_FRAMES), Oracle(vocals), **inputs))
    second, _, _ = joined(messages(Written(song, chunk=11, delay_s=0.01), Oracle(vocals), **inputs))
    assert np.array_equal(first, second)


def test_stems_of_a_song_leave_its_audio_alone(song: np.ndarray, vocals: np.ndarray, band: np.ndarray) -> None:
    oracle = Oracle(vocals)
    audio, stems, report = joined(messages(Written(song), oracle, stems=np.array([True])))
    plain, _, plain_report = joined(messages(Written(song), oracle))
    assert np.array_equal(audio, plain)
    assert stems is not None
    assert stems.shape == (2, *song.shape)
    assert float(np.abs(stems.sum(axis=0) - audio).max()) <= 1e-6
    expected = resample(band, STEM_RATE_HZ, SAMPLE_RATE_HZ)[:, : song.shape[1]]
    assert float(np.abs(stems[0] - expected)[:, :-500].max()) <= 1e-3
    assert report["stems"] == list(MIX_STEM_NAMES)
    assert oracle.n_converted == 0
    assert "stems" not in plain_report
    assert "svc_steps" not in plain_report["settings"]


@pytest.mark.parametrize("more", [{}, LIVE], ids=["exact", "live"])
def test_stems_of_a_song_with_a_voice_add_up_and_leave_its_audio_alone(
    song: np.ndarray, vocals: np.ndarray, more: dict[str, np.ndarray]
) -> None:
    inputs = voice_inputs() | more
    audio, stems, report = joined(messages(Written(song), Oracle(vocals), **inputs, stems=np.array([True])))
    assert np.array_equal(joined(messages(Written(song), Oracle(vocals), **inputs))[0], audio)
    assert stems is not None
    assert np.array_equal(stems[0] + stems[1], audio)
    assert report["stems"] == list(MIX_STEM_NAMES)


def test_a_song_in_which_nobody_sings_stays_as_it_is(song: np.ndarray, band: np.ndarray) -> None:
    silent = Oracle(band * np.float32(1e-3))
    written = Written(resample(band, STEM_RATE_HZ, SAMPLE_RATE_HZ)[:, : song.shape[1]])
    audio, _, report = joined(messages(written, silent, **voice_inputs()))
    assert np.array_equal(audio, written.song)
    assert report["converted"] is False
    with pytest.raises(InvalidRequestError, match="no vocals found"):
        joined(messages(written, Oracle(silent.vocals), **voice_inputs(), no_vocals=text("error")))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("svc_steps", np.array([4])),
        ("live", np.array([True])),
        ("auto_pitch", text("octave")),
        ("no_vocals", text("convert")),
        ("voice_consent", text("me")),
    ],
)
def test_what_belongs_to_a_voice_is_refused_without_one(name: str, value: np.ndarray) -> None:
    with pytest.raises(InvalidRequestError, match=f"{name}: expected only with a voice"):
        SongRequest.from_inputs({"lyrics": text("la"), name: value}, PRESET)


def test_conversion_begins_before_the_song_is_written(song: np.ndarray, vocals: np.ndarray) -> None:
    written = Written(song, chunk=23)
    converting = threading.Event()

    class Early(Oracle):
        def convert(self, request: ConversionRequest) -> Iterator[ConvertedChunk]:
            if not converting.is_set():
                assert not written.ended.is_set()
            converting.set()
            yield from super().convert(request)

    class Waits(Written):
        def write_codes(self, request: LmRequest) -> Iterator[Codes]:
            for index, chunk in enumerate(super().write_codes(request)):
                assert index < 8 or converting.wait(60), "two thirds of the song are there, and nothing is converted"
                yield chunk

    audio, _, _ = joined(messages(Waits(song, chunk=23), Early(vocals), **voice_inputs(), **LIVE))
    assert converting.is_set()
    assert audio.shape == song.shape


def test_a_slow_converter_does_not_hold_up_the_writing(song: np.ndarray, vocals: np.ndarray) -> None:
    written = Written(song)

    class Patient(Oracle):
        def convert(self, request: ConversionRequest) -> Iterator[ConvertedChunk]:
            assert written.ended.wait(60), "the song is not written on while a window is converted"
            yield from super().convert(request)

    joined(messages(written, Patient(vocals), **voice_inputs(), **LIVE))


def test_codes_and_progress_of_every_stage_come_through(song: np.ndarray, vocals: np.ndarray) -> None:
    stream = list(messages(Written(song), Oracle(vocals), **voice_inputs(), return_codes=np.array([True])))
    pieces = [message for message in stream if isinstance(message, CodesChunk)]
    assert [piece.start for piece in pieces] == list(range(0, N_FRAMES, 7))
    stages = {message.stage for message in stream if isinstance(message, Event)}
    assert stages == {"lm", "codec", "separate", "convert", "mix"}
    last = {message.stage: message.done for message in stream if isinstance(message, Event)}
    assert all(abs(done - N_FRAMES) <= 1 for done in last.values()), last


@pytest.mark.parametrize("where", ["codec", "separate", "convert"])
def test_a_failing_stage_fails_the_song_with_its_own_error(song: np.ndarray, vocals: np.ndarray, where: str) -> None:
    class Failing(Oracle):
        def separate(self, request: SeparationRequest) -> tuple[np.ndarray, np.ndarray | None]:
            if where == "separate" and self.n_separated == 1:
                raise EngineError("separate: exploded")
            return super().separate(request)

        def convert(self, request: ConversionRequest) -> Iterator[ConvertedChunk]:
            if where == "convert":
                raise EngineError("convert: exploded")
            yield from super().convert(request)

    class Broken(Written):
        def decode_window(self, request: CodecRequest) -> tuple[np.ndarray, np.ndarray]:
            if where == "codec" and self.n_windows == 1:
                raise EngineError("codec: exploded")
            return super().decode_window(request)

    with pytest.raises(EngineError, match=f"{where}: exploded"):
        joined(messages(Broken(song), Failing(vocals), **voice_inputs(), **LIVE))


def test_cancelling_ends_a_song_while_it_is_converted(song: np.ndarray, vocals: np.ndarray) -> None:
    release, cancelled = threading.Event(), threading.Event()

    class Stuck(Oracle):
        def convert(self, request: ConversionRequest) -> Iterator[ConvertedChunk]:
            cancelled.set()
            release.wait(300)
            yield from super().convert(request)

    request = SongRequest.from_inputs(
        {"lyrics": text("la"), "codec_window": np.array([CODES_PER_UNIT])} | voice_inputs(), PRESET
    )
    stuck = Stuck(vocals)
    context = JobContext(ABOUT, cancelled_when(cancelled.is_set))
    stream = run_song(request, Written(song), lambda: stuck, PRESET, context, detect_vocals=True)
    with pytest.raises(RequestCancelledError):
        list(stream)
    release.set()
