"""A cover through the pipeline with an oracle that knows the vocals, and converters good and bad."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator

import numpy as np
import pytest

from heartvoice.audio.dsp import resample
from heartvoice.audio.stereo_image import mid_channel
from heartvoice.config.presets import PRESETS, with_separator
from heartvoice.contracts.constants import AUTO_PITCH_DOES, SAMPLE_RATE_HZ, STEM_RATE_HZ
from heartvoice.contracts.messages import AudioChunk, Message
from heartvoice.errors import EngineError, InvalidRequestError, RequestCancelledError
from heartvoice.pipeline.context import JobContext
from heartvoice.pipeline.cover import run_cover
from heartvoice.pipeline.cover_request import CoverRequest
from heartvoice.pipeline.singing import MEASURED_ON
from heartvoice.pipeline.voice_conversion import MAX_AHEAD_WINDOWS
from heartvoice.runtime.networks import Check, never_cancelled
from heartvoice.stages.separation.request import SeparationRequest
from heartvoice.stages.svc.request import ConversionRequest, ConvertedChunk
from tests.fakes.networks import text
from tests.support import music
from tests.support.cancelling import cancelled_when
from tests.support.pipeline_messages import joined
from tests.support.voice_stages import LIVE, Oracle, voice_inputs

PRESET = with_separator(PRESETS["tiny"], "htdemucs")
ABOUT = {"preset": "tiny", "random_weights": True}
SECONDS = 16.0


def request(mix: np.ndarray, **more: np.ndarray) -> CoverRequest:
    recording = {"audio": np.ascontiguousarray(mix), "sample_rate": np.array([STEM_RATE_HZ])}
    return CoverRequest.from_inputs(recording | voice_inputs() | more)


def cover(
    wanted: CoverRequest, oracle: Oracle, check: Check = never_cancelled, *, detect_vocals: bool = True
) -> Generator[Message, None, None]:
    return run_cover(wanted, oracle, PRESET, JobContext(ABOUT, check), detect_vocals=detect_vocals)


@pytest.mark.parametrize("live", [False, True])
def test_a_converter_that_returns_its_input_gives_the_recording_back(live: bool) -> None:
    mix, vocals, _ = music.song(SECONDS)
    oracle = Oracle(vocals)
    audio, report = joined(cover(request(mix, live=np.array([live])), oracle))
    expected = resample(mix, STEM_RATE_HZ, SAMPLE_RATE_HZ)
    assert audio.shape == expected.shape
    assert float(np.abs(audio - expected).max()) <= 1e-5
    assert report["converted"] is True
    assert report["f0"] == {
        "source_median_hz": 220.0, "result_median_hz": 220.0, "voice_median_hz": 220.0, "change_semitones": 0.0,
        "measured_on": MEASURED_ON,
    }  # fmt: skip
    assert oracle.n_separated > 2
    assert oracle.n_converted == (oracle.n_separated if live else 1)
    heard = np.concatenate([window.vocals for window in oracle.windows])
    assert np.array_equal(heard, mid_channel(vocals)), "vocals reach the converter untouched"
    assert [window.more for window in oracle.windows] == [True] * (oracle.n_converted - 1) + [False]
    assert oracle.windows[0].state is None
    assert [w.state[0] for w in oracle.windows[1:] if w.state is not None] == list(range(1, oracle.n_converted))


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("what", ["recording", "vocals"])
def test_singing_whose_channels_cancel_is_converted_and_stays_where_it_was(what: str, live: bool) -> None:
    _, vocals, band = music.song(8.0)
    turned = np.array([[1.0], [-0.9]], np.float32)
    vocals, band = vocals[:1] * turned, band * turned if what == "recording" else band
    oracle = Oracle(vocals)
    audio, report = joined(cover(request(vocals + band, live=np.array([live])), oracle))
    expected = resample(vocals + band, STEM_RATE_HZ, SAMPLE_RATE_HZ)
    assert float(np.abs(audio - expected).max()) <= 1e-5
    heard = np.concatenate([window.vocals for window in oracle.windows])
    assert np.linalg.norm(heard) == pytest.approx(0.95 * np.linalg.norm(vocals[0]), rel=0.03)
    assert any(each.startswith("vocals: left and right cancel each other") for each in report["warnings"])
    assert report["similarity"]["after"] is not None


class Soft(Oracle):
    """Returns its input at another level, and reports as a converter does."""

    gain_db = 0.0

    def convert(self, request: ConversionRequest) -> Iterator[ConvertedChunk]:
        self.n_converted += 1
        done = {
            "windows": 1, "auto_pitch": "octave", "shift_semitones": 12.0 if self.n_converted > 1 else 0.0,
            "auto_shift_semitones": 12.0, "keeps_key": True, "warnings": ["pitch: too high"],
        }  # fmt: skip
        state = np.zeros(1, np.float32) if request.more else None
        yield ConvertedChunk(request.vocals * np.float32(10 ** (self.gain_db / 20)), state, done)


@pytest.mark.parametrize(("gain_db", "live"), [(-24.0, False), (20.0, False), (-24.0, True)])
def test_a_soft_or_loud_converter_gives_the_same_cover_and_what_it_did_is_reported(gain_db: float, live: bool) -> None:
    mix, vocals, _ = music.song(8.0)
    oracle = Soft(vocals)
    oracle.gain_db = gain_db
    audio, report = joined(cover(request(mix, live=np.array([live])), oracle))
    assert float(np.abs(audio - resample(mix, STEM_RATE_HZ, SAMPLE_RATE_HZ)).max()) <= 1e-5
    assert report["mix"]["loudness_gain_db"] == pytest.approx([-gain_db, -gain_db], abs=0.01)
    assert report["warnings"][-1] == "pitch: too high"
    assert report["f0"]["change_semitones"] == 0.0, "measured, whatever was done"
    done = report["pitch"]
    assert done["does"] == AUTO_PITCH_DOES["octave"]
    assert (done["shift_semitones"], done.get("shifts_semitones")) == ((12.0, [0.0, 12.0]) if live else (0.0, None))
    assert done["keeps_key"] is True


class Silencer(Oracle):
    def convert(self, request: ConversionRequest) -> Iterator[ConvertedChunk]:
        yield ConvertedChunk(np.zeros_like(request.vocals), None, {})


def test_a_converter_that_is_silent_leaves_the_band() -> None:
    mix, vocals, band = music.song(8.0)
    audio, report = joined(cover(request(mix), Silencer(vocals)))
    assert float(np.abs(audio - resample(band, STEM_RATE_HZ, SAMPLE_RATE_HZ)).max()) <= 1e-3
    similarity = report["similarity"]
    assert similarity["before"] is not None
    assert similarity["after"] is None, "nothing audible to judge"
    assert report["warnings"][-1] == "loudness: the converter returned silence for all of the singing"


class Short(Oracle):
    """Loses samples at the very end."""

    missing = 511

    def convert(self, request: ConversionRequest) -> Iterator[ConvertedChunk]:
        if request.more:
            yield from super().convert(request)
        else:
            yield ConvertedChunk(request.vocals[: -self.missing], None, {})


def test_a_converter_may_be_511_samples_short() -> None:
    mix, vocals, _ = music.song(8.0)
    audio, _ = joined(cover(request(mix), Short(vocals)))
    expected = resample(mix, STEM_RATE_HZ, SAMPLE_RATE_HZ)
    assert audio.shape == expected.shape
    assert float(np.abs(audio - expected)[:, :-4000].max()) <= 1e-2


@pytest.mark.parametrize("broken", ["nan", "short"])
def test_a_broken_converter_fails_the_cover(broken: str) -> None:
    class Broken(Short):
        missing = 5000

        def convert(self, request: ConversionRequest) -> Iterator[ConvertedChunk]:
            if broken == "nan":
                yield ConvertedChunk(request.vocals * np.float32(np.nan), None, {})
            else:
                yield from super().convert(request)

    mix, vocals, _ = music.song(8.0)
    with pytest.raises(EngineError):
        joined(cover(request(mix), Broken(vocals)))


# ----------------------------------------------------------------------------------------------------------- no vocals


@pytest.fixture(scope="module")
def instrumental() -> np.ndarray:
    return music.song(8.0)[2]


def without_vocals(instrumental: np.ndarray) -> Oracle:
    return Oracle(instrumental * np.float32(1e-3))  # what leaks into the stem


def test_a_recording_without_vocals_passes_through_unchanged(instrumental: np.ndarray) -> None:
    oracle = without_vocals(instrumental)
    audio, report = joined(cover(request(instrumental), oracle))
    assert np.array_equal(audio, resample(instrumental, STEM_RATE_HZ, SAMPLE_RATE_HZ))
    assert report["converted"] is False
    assert oracle.n_converted == 0


def test_a_recording_without_vocals_is_an_error_if_asked(instrumental: np.ndarray) -> None:
    pipeline = cover(request(instrumental, no_vocals=text("error")), without_vocals(instrumental))
    with pytest.raises(InvalidRequestError, match="recording: no vocals found"):
        joined(pipeline)


@pytest.mark.parametrize("how", ["asked", "random weights"])
def test_a_recording_without_vocals_is_converted_if_asked_or_if_nobody_can_tell(
    instrumental: np.ndarray, how: str
) -> None:
    oracle = without_vocals(instrumental)
    more = {"no_vocals": text("convert")} if how == "asked" else {}
    pipeline = cover(request(instrumental, **more), oracle, detect_vocals=how == "asked")
    _, report = joined(pipeline)
    assert report["converted"] is True
    assert oracle.n_converted == 1


def test_a_long_introduction_is_kept_until_the_singer_begins() -> None:
    _, vocals, band = music.song(16.0)
    silent = np.zeros_like(vocals)
    begin = 9 * STEM_RATE_HZ
    late = np.concatenate([silent[:, :begin], vocals[:, begin:]], axis=1)
    oracle = Oracle(late)
    audio, report = joined(cover(request(band + late), oracle))
    assert report["converted"] is True
    assert oracle.n_converted == 1
    assert float(np.abs(audio - resample(band + late, STEM_RATE_HZ, SAMPLE_RATE_HZ)).max()) <= 1e-5


# ------------------------------------------------------------------------------------------------------ order and ends


def test_the_next_window_is_separated_while_one_is_converted() -> None:
    mix, vocals, _ = music.song(SECONDS)
    converting = threading.Event()
    overlapped = threading.Event()

    class Watched(Oracle):
        def separate(self, request: SeparationRequest) -> tuple[np.ndarray, np.ndarray | None]:
            time.sleep(0.05)
            if self.n_separated and converting.is_set():
                overlapped.set()
            return super().separate(request)

        def convert(self, request: ConversionRequest) -> Iterator[ConvertedChunk]:
            converting.set()
            assert overlapped.wait(60) or not request.more, "separation waited for the conversion"
            yield from super().convert(request)

    joined(cover(request(mix, **LIVE), Watched(vocals)))
    assert overlapped.is_set()


def test_separation_does_not_run_far_ahead_of_a_slow_consumer() -> None:
    mix, vocals, _ = music.song(45.0)
    oracle = Oracle(vocals)
    stream = cover(request(mix, **LIVE), oracle)
    while not isinstance(next(stream), AudioChunk):
        pass
    time.sleep(0.5)
    assert oracle.n_separated <= 1 + 2 * (MAX_AHEAD_WINDOWS + 1) + 1
    stream.close()


def test_cancelling_ends_the_job_while_a_stage_is_at_work() -> None:
    mix, vocals, _ = music.song(8.0)
    release, cancelled = threading.Event(), threading.Event()

    class Stuck(Oracle):
        def convert(self, request: ConversionRequest) -> Iterator[ConvertedChunk]:
            cancelled.set()
            release.wait(300)
            yield from super().convert(request)

    with pytest.raises(RequestCancelledError):
        list(cover(request(mix), Stuck(vocals), cancelled_when(cancelled.is_set)))
    release.set()


def test_a_failing_separation_fails_the_cover_with_its_own_error() -> None:
    class Failing(Oracle):
        def separate(self, request: SeparationRequest) -> tuple[np.ndarray, np.ndarray | None]:
            if self.n_separated == 2:
                raise EngineError("htdemucs: exploded")
            return super().separate(request)

    mix, vocals, _ = music.song(SECONDS)
    with pytest.raises(EngineError, match="htdemucs: exploded"):
        joined(cover(request(mix), Failing(vocals)))


def test_a_reference_without_a_voice_is_refused_before_the_job() -> None:
    class Noise(Oracle):
        def track_f0(self, audio: np.ndarray) -> np.ndarray:
            contour: np.ndarray = np.where(np.arange(len(audio) // 160 + 1) % 25, 0.0, 220.0).astype(np.float32)
            return contour

    mix, vocals, _ = music.song(8.0)
    stages = Noise(vocals)
    with pytest.raises(
        InvalidRequestError, match=r"voice: expected somebody who speaks or sings at least 5% .* got [34]\."
    ):
        joined(cover(request(mix), stages))
    assert stages.n_separated == 0
    joined(cover(request(mix, reference_check=text("off")), Noise(vocals)))


@pytest.mark.parametrize("mode", ["warn", "strict"])
def test_two_voices_are_a_warning_or_refused_before_the_job(mode: str) -> None:
    class Two(Oracle):
        n_embedded = 0

        def embed(self, audio: np.ndarray) -> np.ndarray:
            self.n_embedded += 1
            vector: np.ndarray = np.eye(3, dtype=np.float32)[self.n_embedded % 2]
            return vector

    mix, vocals, _ = music.song(8.0)
    stages = Two(vocals)
    made = cover(request(mix, reference_check=text(mode)), stages)
    if mode == "strict":
        with pytest.raises(InvalidRequestError, match="voice: expected one voice alone, got two voices"):
            joined(made)
        assert stages.n_separated == 0
        return
    _, report = joined(made)
    assert any(warning.startswith("voice: two voices") for warning in report["warnings"])
    halves = {engine: found["halves"]["cosine"] for engine, found in report["reference"]["judges"].items()}
    assert halves == {"campplus": 0.0, "resemblyzer": 0.0}


def test_a_reference_is_separated_if_asked_for() -> None:
    voice = music.singer(6.0, STEM_RATE_HZ, seed=3)

    class Separating(Oracle):
        """Separates the reference first, to half of it."""

        def separate(self, request: SeparationRequest) -> tuple[np.ndarray, np.ndarray | None]:
            if self.n_separated < 2:
                kept, self.vocals = self.vocals, 0.5 * np.stack([voice, voice])
                stems, carry = super().separate(request)
                self.vocals, self.at = kept, 0 if carry is None else self.at
                return stems.astype(np.float32), carry
            return super().separate(request)

    mix, vocals, _ = music.song(8.0)
    stages = Separating(vocals)
    _, plain = joined(cover(request(mix), Oracle(vocals)))
    _, report = joined(cover(request(mix, reference_separate=np.array([True])), stages))
    (window,) = stages.windows
    assert window.voice is not None
    np.testing.assert_allclose(window.voice.audio44, 0.5 * voice, atol=1e-6)
    assert window.voice_key == window.voice.sha256 != report["voice_sha256"]
    assert report["voice_sha256"] == plain["voice_sha256"], "the reference that was sent"
    assert report["reference"]["separated"] is True
    assert report["settings"]["reference_separate"] is True


def test_poor_references_are_named_in_the_report() -> None:
    mix, vocals, _ = music.song(8.0)
    quiet = music.singer(4.0, 8_000, seed=1)
    inputs = {"voice_audio": quiet[None], "voice_sample_rate": np.array([8_000])}
    _, report = joined(cover(request(mix, **inputs), Oracle(vocals)))
    assert report["warnings"]
    assert report["voice_consent"] == "me, here"
    assert len(report["voice_sha256"]) == 64
