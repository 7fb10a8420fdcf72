"""The conversion stage: voices, whole songs, their pitch, refusals and cancellation."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from heartvoice.errors import EngineError, InvalidRequestError, RequestCancelledError
from heartvoice.keyed_random import normal
from heartvoice.stages.svc.exact import ExactConversion
from heartvoice.stages.svc.pitch import pitch_bins
from heartvoice.stages.svc.settings import AutoPitch, ConvertSettings
from heartvoice.stages.svc.stage import ConvertStage, Floats
from heartvoice.stages.svc.voice_features import VoiceFeatures, stretch_start
from heartvoice.stages.svc.windows import nearest_index
from tests.support.cancelling import networks_until
from tests.support.golden_cases import assert_close
from tests.support.svc_conversion import RATE_HZ, SIZES, Called, Kind, small_runs, small_stage, stage_over, tone

QUICK = ConvertSettings(steps=1, guidance=0.0, auto_pitch="off", prompt_s=3.0)
PROMPT_FRAMES = 3 * RATE_HZ // 512
CONTEXT = 400
ROOM = CONTEXT - PROMPT_FRAMES


@lru_cache(maxsize=4)
def voice_of(hz: float = 440.0, seconds: float = 3.0) -> VoiceFeatures:
    return small_stage()[0].voice(tone(seconds, hz), 3.0)


def sung(stage: ConvertStage, vocals: Floats, settings: ConvertSettings, voice: VoiceFeatures | None = None) -> Floats:
    return np.concatenate(list(ExactConversion(stage, vocals, voice or voice_of(), settings)))


# ---------------------------------------------------------------------------------------------------------- whole songs


@pytest.mark.parametrize("n_samples", [512, 600, 769, 1023, ROOM * 512, ROOM * 512 + 513, 3 * ROOM * 512 + 100])
def test_a_song_of_any_length_keeps_it_but_for_a_part_of_a_hop(n_samples: int) -> None:
    song = sung(small_stage()[0], tone(n_samples / RATE_HZ)[:n_samples], QUICK)
    assert song.dtype == np.float32
    assert len(song) == n_samples // 512 * 512
    assert np.abs(song).max() <= 1
    assert song.any()


def test_pieces_come_as_windows_finish() -> None:
    stage, networks = small_stage()
    conversion = ExactConversion(stage, tone(4.0), voice_of(), QUICK)
    assert not networks.calls  # nothing is done before it is asked for
    windows = stage.plan(4 * RATE_HZ // 512, voice_of())
    assert len(windows) == 3
    for number, piece in enumerate(conversion, 1):
        assert networks.calls.count("svc_flow") == number
        assert networks.calls.count("svc_regulator") == 1  # quirk 6: over the whole song
        n_frames = windows[number - 1].end - windows[number - 1].start
        assert len(piece) == (n_frames - (0 if number == 3 else 16)) * 512
    assert conversion.report()["windows"] == 3


def test_the_regulator_hears_all_frames_of_the_song_in_one_call() -> None:
    given: list[Mapping[str, Any]] = []

    def regulator(inputs: Mapping[str, Any]) -> dict[str, Any]:
        given.append(inputs)
        return small_runs()["svc_regulator"](inputs)

    stage, _ = small_stage(svc_regulator=regulator)
    sung(stage, tone(4.0), QUICK)
    (inputs,) = given
    assert inputs["content"].shape == (1, 4 * 50 + 1, 24)
    assert np.array_equal(inputs["content_index"], nearest_index(201, 344))
    assert inputs["f0_bins"].shape == (1, 344)
    assert np.median(inputs["f0_bins"]) == pitch_bins(np.array([220.0]))[0]


def test_the_seed_decides_and_nothing_else() -> None:
    stage, _ = small_stage()
    song, again = (sung(stage, tone(2.5), QUICK) for _ in range(2))
    other = sung(stage, tone(2.5), ConvertSettings(steps=1, guidance=0.0, auto_pitch="off", prompt_s=3.0, seed=1))
    assert np.array_equal(song, again)
    assert np.abs(song - other).max() > 1e-3


def test_modules_and_graphs_sing_the_same() -> None:
    settings = ConvertSettings(steps=2, prompt_s=3.0, auto_pitch="exact", pitch_shift=-3)
    songs, voices = [], []
    kinds: tuple[Kind, Kind] = ("modules", "graphs")
    for kind in kinds:
        stage, _ = small_stage(kind)
        voices.append(stage.voice(tone(3.0, 330.0), 3.0))
        songs.append(sung(stage, tone(2.0), settings, voices[-1]))
    assert_close(voices[1].style, voices[0].style, 1e-4)
    assert_close(songs[1], songs[0], 1e-4)


def test_the_voice_is_heard() -> None:
    stage, _ = small_stage()
    low, high = (sung(stage, tone(1.0), QUICK, voice_of(hz)) for hz in (150.0, 440.0))
    assert np.abs(low - high).max() > 1e-3


def test_noise_does_not_depend_on_the_voice() -> None:
    stage, _ = small_stage()
    draw = stage.noise(7)
    assert np.array_equal(draw(2, 30), normal(7, "svc", 2, (30, SIZES.dit.in_channels)))


def test_voices_converted_at_once_do_not_mix() -> None:
    stage, _ = small_stage()
    pitches = [150.0, 300.0, 440.0]
    alone = [sung(stage, tone(1.0), QUICK, voice_of(hz)) for hz in pitches]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda hz: sung(stage, tone(1.0), QUICK, voice_of(hz)), pitches * 3))
    for index, song in enumerate(together):
        assert np.array_equal(song, alone[index % 3])


# ---------------------------------------------------------------------------------------------------------------- pitch


def report_of(vocals: Floats, voice: VoiceFeatures, auto: AutoPitch, shift: float = 0.0) -> dict[str, Any]:
    stage, _ = small_stage()
    settings = ConvertSettings(steps=1, guidance=0.0, auto_pitch=auto, pitch_shift=shift, prompt_s=3.0)
    conversion = ExactConversion(stage, vocals, voice, settings)
    list(conversion)
    return conversion.report()


def test_the_report_says_what_was_shifted_and_heard() -> None:
    found = report_of(tone(1.0), voice_of(440.0), "exact", shift=2)
    low, high = found["median_hz"], found["voice_median_hz"]
    assert (abs(low - 220) < 20, abs(high - 440) < 20) == (True, True)
    assert found["auto_shift_semitones"] == pytest.approx(12 * np.log2(high / low), abs=1e-3)
    assert found["shift_semitones"] == pytest.approx(found["auto_shift_semitones"] + 2, abs=1e-3)
    assert found | {"voiced_share": 1.0, "voice_voiced_share": 1.0, "prompt_s": 3.0, "prompt_start_s": 0.0} == found
    assert (found["mode"], found["windows"], found["shift_off_semitones"]) == ("exact", 1, 0.0)
    assert (found["auto_pitch"], found["keeps_key"], found["warnings"]) == ("exact", False, [])


@pytest.mark.parametrize(("auto", "multiple"), [("semitone", 1), ("octave", 12)])
def test_an_automatic_shift_is_rounded_as_asked(auto: AutoPitch, multiple: int) -> None:
    exact = report_of(tone(1.0), voice_of(440.0), "exact")["shift_semitones"]
    found = report_of(tone(1.0), voice_of(440.0), auto)["shift_semitones"]
    assert found == multiple * round(exact / multiple) != 0


def test_without_automatic_pitch_only_what_was_asked_for_moves() -> None:
    assert report_of(tone(1.0), voice_of(440.0), "off", shift=-5)["shift_semitones"] == -5


def test_a_shift_moves_the_bins_that_the_regulator_is_given() -> None:
    seen = []

    def regulator(inputs: Mapping[str, Any]) -> dict[str, Any]:
        seen.append(int(np.median(inputs["f0_bins"])))
        return small_runs()["svc_regulator"](inputs)

    stage, _ = small_stage(svc_regulator=regulator)
    for shift in (0.0, 12.0):
        sung(stage, tone(1.0), ConvertSettings(steps=1, guidance=0.0, auto_pitch="off", pitch_shift=shift))
    hz = report_of(tone(1.0), voice_of(), "off")["median_hz"]
    assert seen == pitch_bins(np.array([hz, 2 * hz])).tolist()


def test_silent_vocals_are_converted_and_not_moved() -> None:
    silence = np.zeros(RATE_HZ, np.float32)
    found = report_of(silence, voice_of(440.0), "exact", shift=3)
    assert (found["voiced_share"], found["median_hz"]) == (0.0, 0.0)
    assert found["shift_semitones"] == 3
    assert np.isfinite(sung(small_stage()[0], silence, QUICK)).all()


def test_a_reference_without_a_voiced_value_moves_nothing() -> None:
    whisper = normal(0, "whisper", 0, (4 * RATE_HZ,)) * np.float32(1e-5)
    voice = small_stage()[0].voice(whisper, 3.0)
    assert (voice.voiced_share, voice.median_hz) == (0.0, 0.0)
    found = report_of(tone(1.0), voice, "exact")
    assert found["shift_semitones"] == 0
    assert found["voiced_share"] == 1


def test_soft_sounds_between_notes_move_no_median() -> None:
    voice = small_stage()[0].voice(np.concatenate([tone(1.0, 440.0), tone(2.0, 100.0, 0.002)]), 3.0)
    assert voice.median_hz == pytest.approx(440, abs=20)
    assert voice.voiced_share == pytest.approx(1 / 3, abs=0.03)
    found = report_of(np.concatenate([tone(1.0), tone(2.0, 800.0, 0.005)]), voice, "octave")
    assert found["median_hz"] == pytest.approx(220, abs=20)
    assert found["shift_semitones"] == 12


# --------------------------------------------------------------------------------------------------------------- voices


def test_a_voice_holds_its_prompt_and_cannot_be_changed() -> None:
    voice = voice_of()
    assert (voice.n_frames, voice.mel.shape, voice.cond.shape) == (258, (258, 12), (258, 32))
    assert (voice.style.shape, voice.f0.shape) == ((20,), (301,))
    assert voice.nbytes == 4 * (258 * (12 + 32) + 20 + 301)
    with pytest.raises(ValueError, match="read-only"):
        voice.mel[0] = 0


def test_the_stretch_with_the_most_voice_is_taken() -> None:
    silence = np.zeros(4 * RATE_HZ, np.float32)
    reference = np.concatenate([silence, tone(1.0, 300.0), silence, tone(3.0, 440.0), silence])
    voice = small_stage()[0].voice(reference, 3.0)
    assert voice.start_s == pytest.approx(9.0, abs=0.03)
    assert voice.voiced_share > 0.98
    alone = small_stage()[0].voice(reference[round(voice.start_s * RATE_HZ) :][: 3 * RATE_HZ], 3.0)
    assert np.array_equal(voice.mel, alone.mel)
    assert voice.sha256 == alone.sha256
    assert np.array_equal(voice.cond, alone.cond)  # nothing beside the stretch is heard
    assert np.array_equal(voice.style, alone.style)


@pytest.mark.parametrize("prompt_s", [3.0, 25.0])
@pytest.mark.parametrize("gain_db", [-60.0, -24.0, 18.0])
def test_the_level_of_a_reference_makes_no_difference(gain_db: float, prompt_s: float) -> None:
    stage, _ = small_stage()
    reference = np.concatenate([np.zeros(RATE_HZ, np.float32), tone(3.5, 300.0)])
    voice = stage.voice(reference, prompt_s)
    other = stage.voice(reference * np.float32(10 ** (gain_db / 20)) + np.float32(0.001), prompt_s)
    assert other.start_s == voice.start_s
    assert other.gain_db == pytest.approx(voice.gain_db - gain_db, abs=0.1)
    assert other.median_hz == pytest.approx(voice.median_hz, rel=1e-3)
    voiced = slice(100, 200)
    np.testing.assert_allclose(other.mel[voiced, 1:], voice.mel[voiced, 1:], atol=0.2)
    np.testing.assert_allclose(other.style, voice.style, atol=0.1 * np.abs(voice.style).max())


def stretches(levels: list[float], voiced: list[bool], prompt_s: float) -> int:
    """Where a stretch begins in a reference of so many seconds, in seconds."""
    audio = np.repeat(np.array(levels, np.float32), 16_000)
    audio[1::2] *= -1  # a level, not an offset
    f0 = np.append(np.repeat(np.where(voiced, 200.0, 0.0), 100), 0.0)
    start = stretch_start(audio, f0, prompt_s)
    assert start % 100 == 0
    return start // 100


def test_a_stretch_weighs_voiced_levels() -> None:
    assert stretches([1, 1, 9, 9, 9, 2, 2, 2], [True] * 2 + [False] * 3 + [True] * 3, 3.0) == 5
    assert stretches([5, 0, 0, 1, 3, 3], [True] * 6, 3.0) == 3
    assert stretches([0.1, 0.1, 0.5, 0.5, 0.1], [False] * 5, 2.0) == 2  # none is voiced: the loudest
    assert stretches([1, 1, 1, 1, 1], [True] * 5, 2.0) == 0
    assert stretches([1, 1], [True] * 2, 3.0) == 0


def test_one_shout_outweighs_no_singing() -> None:
    assert stretches([5, 0, 0, 0, 0, 2, 2, 2, 2], [True] * 9, 4.0) == 5


@pytest.mark.parametrize("seconds", [0.1, 2.0])
def test_a_short_reference_is_taken_whole(seconds: float) -> None:
    voice = voice_of(300.0, seconds)
    assert (voice.start_s, voice.prompt_s) == (0.0, seconds)
    assert len(voice.mel) == int(seconds * RATE_HZ) // 512


def test_25_s_are_the_references_first_as_upstream() -> None:
    silence = np.zeros(2 * RATE_HZ, np.float32)
    stage, _ = small_stage()
    voice = stage.voice(np.concatenate([silence, tone(26.0)]), 25.0)
    assert (voice.start_s, voice.prompt_s, voice.n_frames) == (0.0, 25.0, 2153)
    assert voice.voiced_share == pytest.approx(23 / 25, abs=0.01)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (np.zeros(4409, np.float32), r"voice: expected 4410 to \d+ samples at 44.1 kHz, got 4409"),
        (np.zeros((1, RATE_HZ), np.float32), r"voice: expected float32 \[sample\], got float32 \[1, 44100\]"),
        (np.zeros(RATE_HZ), r"voice: expected float32 \[sample\], got float64 \[44100\]"),
        (np.full(RATE_HZ, np.nan, np.float32), "voice: expected finite values"),
    ],
)
def test_bad_references_are_refused(reference: Any, message: str) -> None:
    stage, networks = small_stage()
    with pytest.raises(InvalidRequestError, match=message):
        stage.voice(reference, 3.0)
    with pytest.raises(InvalidRequestError, match="prompt_s: expected 3 to 25 s, got 26"):
        stage.voice(tone(3.0), 26.0)
    assert not networks.calls


# ------------------------------------------------------------------------------------------------ refusals and failures


@pytest.mark.parametrize(
    ("vocals", "message"),
    [
        (np.zeros(511, np.float32), r"vocals: expected 512 to \d+ samples at 44.1 kHz, got 511"),
        (np.broadcast_to(np.float32(0), 601 * RATE_HZ), "vocals: expected 512 to 26460671 samples .*, got 26504100"),
        (np.zeros((2, 600), np.float32), r"vocals: expected float32 \[sample\], got float32 \[2, 600\]"),
        (np.full(600, np.inf, np.float32), "vocals: expected finite values, got NaN or Inf"),
    ],
)
def test_bad_vocals_are_refused_at_once(vocals: Any, message: str) -> None:
    stage, networks = small_stage()
    with pytest.raises(InvalidRequestError, match=message):
        ExactConversion(stage, vocals, voice_of(), QUICK)
    assert not networks.calls


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "svc_steps: expected 1 to 100, got 0"),
        ({"steps": 101}, "svc_steps: expected 1 to 100, got 101"),
        ({"guidance": -0.1}, "svc_guidance: expected 0 to 3, got -0.1"),
        ({"guidance": float("nan")}, "svc_guidance: expected 0 to 3, got nan"),
        ({"pitch_shift": 24.5}, "pitch_shift: expected -24 to 24 semitones, got 24.5"),
        ({"prompt_s": 2.9}, "prompt_s: expected 3 to 25 s, got 2.9"),
        ({"seed": -1}, "seed: expected .*, got -1"),
        ({"auto_pitch": "fifth"}, "auto_pitch: expected one of off, exact, semitone, octave, got 'fifth'"),
    ],
)
def test_settings_out_of_range_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        ConvertSettings(**change)


def test_settings_are_read_from_a_request() -> None:
    assert ConvertSettings.from_inputs({}) == ConvertSettings()
    inputs = {
        "svc_steps": np.array([10]), "svc_guidance": np.array([0.0], np.float32), "seed": np.array([5]),
        "pitch_shift": np.array([-2.0], np.float32), "prompt_s": np.array([8.0], np.float32),
        "auto_pitch": np.array([b"octave"], object),
    }  # fmt: skip
    expected = ConvertSettings(10, 0.0, 5, -2.0, "octave", 8.0)
    assert ConvertSettings.from_inputs(inputs) == expected
    with pytest.raises(InvalidRequestError, match="auto_pitch: expected one of"):
        ConvertSettings.from_inputs({"auto_pitch": np.array([b"up"], object)})


@pytest.mark.parametrize(
    ("name", "output", "shape"),
    [
        ("svc_regulator", "cond", (1, 85, 32)),
        ("svc_flow", "velocity", (1, PROMPT_FRAMES + 86, 12)),
        ("content_encoder", "content", (1, 1500, 24)),
        ("vocoder", "audio", (1, 1, 86 * 512)),
    ],
)
def test_values_that_are_not_finite_are_an_engine_s_failure(name: str, output: str, shape: tuple[int, ...]) -> None:
    networks = Called({**small_runs(), name: lambda inputs: {output: np.full(shape, np.nan, np.float32)}})
    stage = stage_over(networks)
    with pytest.raises(EngineError, match=f"{name}: {output}: expected finite values, got NaN or Inf"):
        sung(stage, tone(1.0), QUICK)


def test_a_style_of_another_size_is_an_engine_s_failure() -> None:
    stage, _ = small_stage(svc_style=lambda inputs: {"embedding": np.zeros((1, 7), np.float32)})
    with pytest.raises(EngineError, match=r"svc_style: expected \[20\], got \[7\]"):
        stage.voice(tone(3.0), 3.0)


def test_cancelling_stops_before_the_next_network_call() -> None:
    settings = ConvertSettings(steps=2, prompt_s=3.0)
    stage, networks = small_stage()
    list(ExactConversion(stage, tone(2.0), voice_of(), settings))
    wanted = list(networks.calls)
    assert len(wanted) == 3 + 2 * (2 + 1)  # two windows
    for upto in range(len(wanted)):
        networks.calls.clear()
        cancelled = stage_over(networks_until(networks, lambda upto=upto: len(networks.calls) >= upto))  # type: ignore[misc]
        with pytest.raises(RequestCancelledError):
            list(ExactConversion(cancelled, tone(2.0), voice_of(), settings))
        assert networks.calls == wanted[:upto]


def test_cancelling_a_voice_stops_before_the_next_network_call() -> None:
    _, networks = small_stage()
    for upto in range(5):
        networks.calls.clear()
        cancelled = stage_over(networks_until(networks, lambda upto=upto: len(networks.calls) >= upto))  # type: ignore[misc]
        with pytest.raises(RequestCancelledError):
            cancelled.voice(tone(4.0), 3.0)
        assert len(networks.calls) == upto
