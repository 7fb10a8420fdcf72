from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from scipy.signal import coherence

from heartvoice.audio.dsp import resample
from heartvoice.audio.limiter import CEILING_DBTP
from heartvoice.audio.mixer import MAX_SHORTFALL, Mixer, MixPiece, MixReport, mid_channel
from heartvoice.audio.stereo_image import HOP, StereoImage
from heartvoice.errors import EngineError
from tests.support.music import room, singer, song, speaker, true_peak_dbtp

SECONDS = 3.0
Streams = tuple[np.ndarray, np.ndarray, np.ndarray]


def streams(seconds: float = SECONDS) -> Streams:
    """Recording at 48 kHz, its vocals and their mid_channel at 44.1 kHz."""
    mix, vocals, _ = song(seconds)
    return resample(mix, 44_100, 48_000), vocals, mid_channel(vocals)


def another_voice(seconds: float = SECONDS) -> np.ndarray:
    return singer(seconds, seed=7, semitones=5.0) * np.float32(0.5)


def joined(pieces: list[MixPiece]) -> MixPiece:
    ends = np.cumsum([piece.audio.shape[1] for piece in pieces]).tolist()
    assert [piece.start for piece in pieces] == [0, *ends[:-1]]
    audio, instrumental, vocals = (
        np.concatenate([getattr(piece, name) for piece in pieces], axis=1)
        for name in ("audio", "instrumental", "vocals")
    )
    return MixPiece(audio, instrumental, vocals, 0)


def mixed(recording: np.ndarray, vocals: np.ndarray, converted: np.ndarray, gain_db: float = 0.0) -> MixPiece:
    return reported(recording, vocals, converted, gain_db)[0]


def reported(
    recording: np.ndarray, vocals: np.ndarray, converted: np.ndarray, gain_db: float = 0.0
) -> tuple[MixPiece, MixReport]:
    mixer = Mixer(vocal_gain_db=gain_db)
    first = mixer.push(recording, vocals, converted)
    pieces = [piece for piece in (first, mixer.finish()) if piece is not None]
    return joined(pieces), mixer.report


@pytest.mark.parametrize("n", [44_100, 44_101, 44_246, 88_055])
def test_every_length_comes_back_exactly(n: int) -> None:
    recording, vocals, _ = streams()
    vocals = np.ascontiguousarray(vocals[:, :n])
    recording = recording[:, : round(n * 48_000 / 44_100)]
    piece = mixed(recording, vocals, mid_channel(vocals))
    assert piece.audio.shape == recording.shape
    # Near the cut the recording and its vocals were resampled with different futures, which the identity survives.
    assert np.abs(piece.audio - recording).max() < 1e-6


def test_live_pieces_come_out_soon_after_all_streams_went_in() -> None:
    recording, vocals, converted = streams()
    mixer, n_out = Mixer(live=True), 0
    for second in range(1, 4):
        mixer.push(recording[:, (second - 1) * 48_000 : second * 48_000])
        part = slice((second - 1) * 44_100, second * 44_100)
        piece = mixer.push(vocals=vocals[:, part], converted=converted[part])
        n_out += piece.audio.shape[1] if piece else 0
        assert n_out >= (second - 1.4) * 48_000


def test_nothing_comes_out_before_all_streams_went_in() -> None:
    recording, vocals, converted = streams()
    mixer = Mixer(live=True)
    assert mixer.push(recording=recording) is None
    assert mixer.push(vocals=vocals) is None
    assert mixer.push(converted=converted[:88_200]) is not None


def test_exact_pieces_come_out_once_all_vocals_and_some_converted_ones_went_in() -> None:
    n = 9 * 44_100
    recording, vocals = np.zeros((2, 9 * 48_000), np.float32), np.stack([singer(9.0)[:n]] * 2)
    converted = mid_channel(vocals)
    mixer = Mixer()
    assert mixer.push(recording, vocals[:, :100_000], converted[:100_000]) is None
    assert mixer.push(vocals=vocals[:, 100_000:], converted=converted[100_000:120_000]) is None
    mixer.end_vocals()
    piece = mixer.push(converted=converted[120_000 : 8 * 44_100])
    assert piece is not None
    assert 48_000 < piece.audio.shape[1] < 4 * 48_000
    with pytest.raises(RuntimeError, match="mixer: expected no vocals after their end"):
        mixer.push(vocals=vocals)
    last = mixer.push(converted=converted[8 * 44_100 :])
    pieces = [piece, last, mixer.finish()]
    whole = mixed(recording, vocals, converted)
    assert np.array_equal(joined([each for each in pieces if each is not None]).audio, whole.audio)


# -------------------------------------------------------------------------------------------------------------- lengths


@pytest.mark.parametrize(
    ("n_vocals", "n_converted", "message"),
    [
        (0, MAX_SHORTFALL + 1, "converted: expected 131789 to 132300 samples at 44.1 kHz, got 131788"),
        (0, -1, "converted: expected 131789 to 132300 samples at 44.1 kHz, got 132301"),
        (100, 100, "vocals: expected about 132300 samples at 44.1 kHz, got 132200"),
    ],
)
def test_streams_of_unlike_lengths_are_an_error(n_vocals: int, n_converted: int, message: str) -> None:
    recording, vocals, converted = streams()
    mixer = Mixer()
    n = vocals.shape[1] - n_converted
    longer = np.concatenate([converted, np.zeros(10, np.float32)])[:n]
    mixer.push(recording, vocals[:, n_vocals:], longer)
    with pytest.raises(EngineError) as error:
        mixer.finish()
    assert str(error.value) == message


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e9])
@pytest.mark.parametrize("name", ["recording", "vocals", "converted"])
def test_samples_that_are_not_audio_are_an_error(name: str, value: float) -> None:
    samples = np.zeros(100 if name == "converted" else (2, 100), np.float32)
    samples[..., 50] = value
    with pytest.raises(EngineError, match=f"^{name}: expected finite samples"):
        Mixer().push(**{name: samples})


@pytest.mark.parametrize(
    ("name", "samples"),
    [
        ("vocals", np.zeros((1, 10), np.float32)),
        ("converted", np.zeros((1, 10), np.float32)),
        ("converted", np.zeros(10)),
        ("recording", np.zeros(10, np.float32)),
    ],
)
def test_another_shape_or_dtype_is_an_error(name: str, samples: np.ndarray) -> None:
    with pytest.raises(EngineError, match=f"^{name}: expected float32"):
        Mixer().push(**{name: samples})


# ---------------------------------------------------------------------------------------------------------------- sound


@pytest.mark.parametrize("live", [False, True], ids=["exact", "live"])
@pytest.mark.parametrize("gain_db", [-30.0, 30.0])
def test_a_converter_of_another_level_gives_the_recording_back(gain_db: float, live: bool) -> None:
    recording, vocals, _ = streams()
    mixer = Mixer(live=live)
    first = mixer.push(recording, vocals, mid_channel(vocals) * np.float32(10 ** (gain_db / 20)))
    piece = joined([each for each in (first, mixer.finish()) if each is not None])
    assert np.abs(piece.audio - recording).max() < 1e-5
    assert list(mixer.report.loudness_gain_db) == pytest.approx([-gain_db, -gain_db], abs=1e-3)
    assert mixer.report.limiter_reduction_db == 0.0


def test_a_converter_that_is_silent_or_too_far_off_is_in_the_report() -> None:
    recording, vocals, converted = streams()
    assert reported(recording, vocals, converted * 0)[1].warnings == (
        "loudness: the converter returned silence for all of the singing",
    )
    (warning,) = reported(recording, vocals, converted * np.float32(10 ** (-50 / 20)))[1].warnings
    assert warning.startswith("loudness: the new vocals are 10 dB off the old ones")


def test_a_silent_mix_has_a_report_that_fits_json() -> None:
    silent = np.zeros((2, 48_000), np.float32)
    piece, report = reported(silent, silent[:, :44_100], silent[0, :44_100])
    assert not piece.audio.any()
    json.dumps(asdict(report), allow_nan=False)


def test_a_loud_mix_is_limited_in_both_parts_alike() -> None:
    recording, vocals, _ = streams()
    loud = recording * np.float32(2.5)
    piece, report = reported(loud, vocals, another_voice())
    assert true_peak_dbtp(piece.audio) <= CEILING_DBTP
    assert np.abs(piece.instrumental + piece.vocals - piece.audio).max() < 1e-6
    assert report.limiter_reduction_db > 3.0
    assert report.true_peak_dbtp == pytest.approx(true_peak_dbtp(piece.audio), abs=0.05)


# ---------------------------------------------------------------------------------------------------------------- image


def sides(vocals: np.ndarray, converted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Old and new side at 48 kHz."""
    n = round(vocals.shape[1] * 48_000 / 44_100)
    new = mixed(np.zeros((2, n), np.float32), vocals, converted).vocals
    old = resample(vocals, 44_100, 48_000)
    return old[0] - old[1], new[0] - new[1]


def alike(a: np.ndarray, b: np.ndarray) -> float:
    """Mean coherence from 100 Hz to 8 kHz, in [0, 1], whatever the delay and the phase."""
    n = min(len(a), len(b))
    hz, values = coherence(a[:n], b[:n], 48_000, nperseg=2048)
    return float(values[(hz > 100) & (hz < 8000)].mean())


def test_a_voice_beside_the_centre_is_replaced_where_it_stood() -> None:
    voice = singer(4)
    vocals = np.stack([0.8 * voice, 0.3 * voice]).astype(np.float32)
    converted = another_voice(4)
    old_side, new_side = sides(vocals, converted)
    assert abs(np.corrcoef(old_side, new_side)[0, 1]) < 0.02
    new = mixed(np.zeros((2, len(old_side)), np.float32), vocals, converted).vocals
    side, new_middle = new[0] - new[1], new[0] + new[1]
    assert np.corrcoef(side, new_middle)[0, 1] > 0.9999
    # Singing where the old one was silent aside, left is to right as before: 0.8 to 0.3.
    assert np.linalg.norm(side) / np.linalg.norm(new_middle) == pytest.approx(0.5 / 1.1, rel=0.02)


def test_a_half_converted_voice_keeps_half_of_its_room() -> None:
    vocals = room(singer(4), wet=0.4)
    old = mid_channel(vocals)
    new = old + 0.7 * speaker(4)
    old_side, new_side = sides(vocals, new.astype(np.float32))
    assert 0.1 < alike(old_side, new_side) < 0.95


def test_mono_vocals_are_not_analysed(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr("scipy.fft.rfft", forbidden)
    image, voice = StereoImage(), singer(1)[: 40 * HOP]
    new = image.push(np.stack([voice, voice]), another_voice(1)[: 40 * HOP])
    assert np.array_equal(new[0], new[1])
    assert new.any()
    with pytest.raises(AssertionError):
        image.push(np.stack([voice, -voice]), voice)


def test_a_side_that_comes_and_goes_is_rebuilt_without_a_trace() -> None:
    voice = singer(4).copy()
    right = voice.copy()
    right[44_100 : 2 * 44_100] *= np.float32(0.2)
    vocals = np.stack([voice, right])
    n = 4 * 48_000
    recording = resample(vocals, 44_100, 48_000)
    assert np.abs(mixed(recording, vocals, mid_channel(vocals)).audio - recording).max() < 1e-6
    late = mixed(np.zeros((2, n), np.float32), vocals, another_voice(4)).vocals[:, 3 * 48_000 :]
    assert np.array_equal(late[0], late[1])


@pytest.mark.parametrize(("right", "inverted"), [(-1.0, True), (-0.8, False)])
def test_a_new_voice_stands_where_the_old_one_did_though_its_channels_cancel(right: float, inverted: bool) -> None:
    voice = singer(3)
    vocals = np.stack([voice, right * voice]).astype(np.float32)
    recording = resample(vocals, 44_100, 48_000)
    mixer = Mixer(inverted=inverted)
    first = mixer.push(recording, vocals, another_voice(3))
    new = joined([piece for piece in (first, mixer.finish()) if piece is not None]).vocals[:, 48_000:-4800]
    assert np.corrcoef(new)[0, 1] < -0.999
    assert np.linalg.norm(new[1]) / np.linalg.norm(new[0]) == pytest.approx(-right, rel=0.02)
    old = np.linalg.norm(recording[0, 48_000:-4800])
    assert 20 * np.log10(np.linalg.norm(new[0]) / old) == pytest.approx(0, abs=2)
