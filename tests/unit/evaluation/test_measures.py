"""Measures against definitions, other implementations and signals whose answer is known."""

from __future__ import annotations

import numpy as np
import pyloudnorm
import pytest

from heartvoice.evaluation import measures
from heartvoice.evaluation.measures import (
    MEL_RANGE_DB,
    N_MELS,
    SI_SDR_LIMIT_DB,
    compare_f0,
    log_mel_db,
    loudness_lufs,
    mel_distance_db,
    si_sdr_db,
    true_peak_dbtp,
)
from heartvoice.stages.svc.mel import LOG_FLOOR
from tests.support import music


def noise(seed: int, n: int = 40_000, channels: int = 2) -> np.ndarray:
    samples: np.ndarray = np.random.default_rng(seed).standard_normal((channels, n)).astype(np.float32)
    return samples


def orthogonal(truth: np.ndarray) -> np.ndarray:
    """Noise of the truth's energy that has nothing of it."""
    other = noise(1).astype(np.float64)
    other -= truth * (other * truth).sum() / (truth.astype(np.float64) ** 2).sum()
    scaled: np.ndarray = other * np.linalg.norm(truth) / np.linalg.norm(other)
    return scaled


# ---------------------------------------------------------------------------------------------------------- separation


@pytest.mark.parametrize("error_db", [-30.0, 0.0, 12.0])
@pytest.mark.parametrize("scale", [1.0, 0.1, -3.0])
def test_si_sdr_is_the_energy_of_the_truth_over_that_of_the_error_at_any_scale(error_db: float, scale: float) -> None:
    truth = noise(0)
    estimate = (scale * (truth + 10 ** (error_db / 20) * orthogonal(truth))).astype(np.float32)
    assert si_sdr_db(estimate, truth) == pytest.approx(-error_db, abs=1e-3)


def test_si_sdr_has_limits_at_both_ends() -> None:
    truth = noise(0)
    assert si_sdr_db(truth, truth) == pytest.approx(SI_SDR_LIMIT_DB)
    left = np.stack([truth[0], np.zeros_like(truth[0])])
    assert si_sdr_db(left[::-1].copy(), left) == pytest.approx(-SI_SDR_LIMIT_DB)


def test_si_sdr_of_silence_is_undefined() -> None:
    truth = noise(0)
    assert si_sdr_db(np.zeros_like(truth), truth) is None
    assert si_sdr_db(truth, np.zeros_like(truth)) is None


def test_si_sdr_hears_a_wrong_stereo_image() -> None:
    truth = noise(0)
    quieter: np.ndarray = truth * np.array([[1.0], [0.5]], np.float32)
    assert si_sdr_db(quieter, truth) == pytest.approx(10 * np.log10(9), abs=0.05)  # a = 3/4, errors of 1/4 in both


def test_si_sdr_is_the_same_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = noise(0)
    estimate = truth + 0.1 * noise(2)
    whole = si_sdr_db(estimate, truth)
    monkeypatch.setattr(measures, "_BLOCK", 777)
    assert si_sdr_db(estimate, truth) == pytest.approx(whole, abs=1e-9)


# --------------------------------------------------------------------------------------------------------------- pitch


def melody(n: int = 400) -> np.ndarray:
    hz: np.ndarray = 220.0 * 2.0 ** (np.sin(np.arange(n) / 30) / 2)
    return hz


def test_a_transposed_melody_is_the_same_melody() -> None:
    before = melody()
    found = compare_f0(before, before * 2 ** (-5 / 12))
    assert found is not None
    assert found.shift_semitones == pytest.approx(-5.0)
    assert found.correlation == pytest.approx(1.0)
    assert found.median_cents == pytest.approx(0.0, abs=1e-6)
    assert found.p90_cents == pytest.approx(0.0, abs=1e-6)
    assert found.voicing_agreement == 1.0
    assert found.compared_s == 4.0


def test_what_is_off_the_shift_is_told_in_cents() -> None:
    before = melody(1000)
    off = np.where(np.arange(1000) % 2, 30.0, -30.0)
    off[:200] = 90.0
    found = compare_f0(before, before * 2 ** (off / 1200))
    assert found is not None
    assert found.shift_semitones == pytest.approx(0.30)
    assert found.median_cents == pytest.approx(60.0)  # 400 frames at 0, 400 at 60, 200 at 60
    assert found.p90_cents == pytest.approx(60.0)
    assert found.correlation is not None
    assert found.correlation < 0.999


def test_another_melody_does_not_correlate() -> None:
    found = compare_f0(melody(), melody()[::-1] * 2 ** (np.sin(np.arange(400) / 7)))
    assert found is not None
    assert found.correlation is not None
    assert abs(found.correlation) < 0.5
    assert found.median_cents > 100


def test_voicing_counts_every_frame() -> None:
    before, after = melody(), melody()
    before[:100] = 0.0
    after[50:150] = 0.0
    found = compare_f0(before, after)
    assert found is not None
    assert found.compared_s == 2.5
    assert found.voicing_agreement == pytest.approx(0.75)


def test_contours_of_other_lengths_are_compared_where_both_are() -> None:
    found = compare_f0(melody(400), melody(300))
    assert found is not None
    assert found.compared_s == 3.0


def test_too_little_voice_is_no_comparison() -> None:
    before = melody()
    after = before.copy()
    after[49:] = 0.0
    assert compare_f0(before, after) is None
    assert compare_f0(before, np.zeros_like(before)) is None


def test_a_pitch_that_stands_still_has_no_correlation() -> None:
    found = compare_f0(melody(), np.full(400, 220.0))
    assert found is not None
    assert found.correlation is None


# --------------------------------------------------------------------------------------------------------- mel spectra


def test_mel_frames_do_not_depend_on_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    audio = noise(0, 30_000, 1)[0]
    whole = log_mel_db(audio)
    assert whole.shape == (1 + 30_000 // 512, N_MELS)
    monkeypatch.setattr(measures, "_MEL_FRAMES", 7)
    assert np.array_equal(log_mel_db(audio), whole)


def test_silence_is_the_floor_of_the_mel_spectrum() -> None:
    assert np.allclose(log_mel_db(np.zeros(5000, np.float32)), 20 * np.log10(LOG_FLOOR))


def test_mel_distance_is_that_of_levels() -> None:
    audio = noise(0, 44_100, 1)[0]
    mel = log_mel_db(audio)
    assert mel_distance_db(mel, mel) == 0.0
    assert mel_distance_db(mel, log_mel_db(audio / 2)) == pytest.approx(20 * np.log10(2), abs=1e-3)


def test_what_is_too_soft_to_hear_makes_no_mel_distance() -> None:
    mel = np.zeros((10, 4), np.float32)
    one, other = mel.copy(), mel.copy()
    one[5:], other[5:] = -MEL_RANGE_DB, -MEL_RANGE_DB - 50
    one[0], other[0] = 10.0, 0.0
    assert mel_distance_db(one, other) == pytest.approx(10.0 / 5)  # frames 5 to 9 are silent in both
    assert mel_distance_db(np.full((3, 4), -100.0, np.float32), np.full((3, 4), -100.0, np.float32)) is None


# ------------------------------------------------------------------------------------------------------------ loudness


@pytest.mark.parametrize("rate_hz", [44_100, 48_000])
def test_loudness_of_a_stereo_programme_is_pyloudnorms(rate_hz: int) -> None:
    audio = music.band(4.0, rate_hz)
    expected = pyloudnorm.Meter(rate_hz).integrated_loudness(audio.T.astype(np.float64))
    assert loudness_lufs(audio, rate_hz) == pytest.approx(expected, abs=0.1)


def test_two_equal_channels_are_3_db_louder_than_one() -> None:
    one = noise(0, 48_000, 1) * np.float32(0.1)
    mono, stereo = loudness_lufs(one, 48_000), loudness_lufs(np.repeat(one, 2, axis=0), 48_000)
    assert mono is not None
    assert stereo == pytest.approx(mono + 10 * np.log10(2), abs=1e-6)


def test_silence_has_neither_loudness_nor_peak() -> None:
    assert loudness_lufs(np.zeros((2, 48_000), np.float32), 48_000) is None
    assert true_peak_dbtp(np.zeros((2, 48_000), np.float32)) is None


def test_true_peak_lies_between_samples() -> None:
    time = np.arange(4801)
    tone = 0.5 * np.sin(2 * np.pi * 0.25 * time + np.pi / 4)  # samples at 0.707 of it
    audio = (tone * np.hanning(len(time))).astype(np.float32)[None]
    assert np.abs(audio).max() < 0.36
    assert true_peak_dbtp(audio) == pytest.approx(20 * np.log10(0.5), abs=0.1)
    assert true_peak_dbtp(audio) == pytest.approx(music.true_peak_dbtp(audio), abs=0.1)


@pytest.mark.parametrize("at", [0, 4799, 9999, 10_000])
@pytest.mark.parametrize("block", [1 << 18, 4800, 160])
def test_a_peak_anywhere_is_found(at: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures, "_BLOCK", block)
    audio = np.zeros((1, 10_001), np.float32)
    audio[0, at] = 0.25
    assert true_peak_dbtp(audio) == pytest.approx(20 * np.log10(0.25), abs=1e-4)
