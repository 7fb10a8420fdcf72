from __future__ import annotations

import numpy as np
import pyloudnorm
import pytest
from scipy.signal import freqz

from heartvoice.audio.loudness import MAX_GAIN_DB, MAX_STEP_DB, Loudness, LoudnessMatch, k_weighting
from tests.support.music import band, singer, speaker

RATE_HZ = 44_100
HOP = 4410


def measure(*streams: np.ndarray) -> np.ndarray:
    loudness = Loudness(len(streams))
    for at in range(0, streams[0].shape[-1] - HOP + 1, HOP):
        loudness.push(np.stack([stream[at : at + HOP] for stream in streams]))
    return loudness.lufs()


def matched(model: np.ndarray, follower: np.ndarray) -> tuple[np.ndarray, LoudnessMatch]:
    match = LoudnessMatch()
    n = min(len(model), len(follower)) // HOP * HOP
    hops = [match.apply(model[at : at + HOP], follower[at : at + HOP]) for at in range(0, n, HOP)]
    return np.concatenate(hops), match


@pytest.mark.parametrize("audio", [band(8)[0], singer(8), speaker(8)], ids=["band", "singer", "speaker"])
def test_loudness_agrees_with_pyloudnorm(audio: np.ndarray) -> None:
    padded = np.concatenate([audio, np.zeros(4 * RATE_HZ, np.float32)])  # something for the gates to leave out
    assert measure(padded)[0] == pytest.approx(pyloudnorm.Meter(RATE_HZ).integrated_loudness(padded), abs=0.1)


def test_a_full_scale_sine_at_997_hz_measures_minus_3_01_lkfs() -> None:
    sine = np.sin(2 * np.pi * 997 * np.arange(5 * RATE_HZ) / RATE_HZ)
    assert measure(sine)[0] == pytest.approx(-3.01, abs=0.02)


def test_k_weighting_at_other_rates_keeps_its_response() -> None:
    hz = np.array([30.0, 100.0, 1000.0, 2000.0, 8000.0])

    def response_db(rate_hz: int) -> np.ndarray:
        (b1, a1), (b2, a2) = k_weighting(rate_hz)
        both = freqz(b1, a1, hz, fs=rate_hz)[1] * freqz(b2, a2, hz, fs=rate_hz)[1]
        return np.asarray(20 * np.log10(np.abs(both)))

    assert np.abs(response_db(48_000) - response_db(RATE_HZ)).max() < 0.1


def test_silence_has_no_loudness() -> None:
    assert measure(np.zeros(RATE_HZ), singer(1) * 1e-6).tolist() == [-np.inf, -np.inf]


def test_equal_streams_keep_their_samples() -> None:
    voice = singer(4)
    result, match = matched(voice, voice)
    assert np.array_equal(result, voice[: len(result)])
    assert (match.lowest_db, match.highest_db) == (0.0, 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("gain_db", [-9.0, 6.0])
def test_another_voice_becomes_as_loud_as_the_model(gain_db: float) -> None:
    model, other = singer(12), speaker(12)
    model = model * np.float32(10.0 ** (((measure(other) - measure(model))[0] + gain_db) / 20.0))
    result, _ = matched(model, other)
    late = slice(4 * RATE_HZ, 12 * RATE_HZ)
    difference = measure(result[late]) - measure(model[late])
    assert abs(difference[0]) < 1.5
    assert abs((measure(other[late]) - measure(model[late]))[0]) > 4.0


def test_gain_is_bounded_and_moves_in_small_steps() -> None:
    loud, soft = singer(4) * 0.9, singer(4) * np.float32(1e-2)
    result, match = matched(loud, soft)
    assert match.highest_db == pytest.approx(MAX_GAIN_DB)
    gain_db = 20 * np.log10(np.abs(result / np.where(soft == 0, 1, soft)[: len(result)])[soft[: len(result)] != 0])
    assert gain_db.max() <= MAX_GAIN_DB + 1e-4
    ends = np.abs(np.diff(gain_db)).max()
    assert ends < 2 * MAX_STEP_DB / HOP + 1e-3
    assert matched(soft, loud)[1].lowest_db == pytest.approx(-MAX_GAIN_DB)


def test_gain_stays_one_until_both_streams_were_heard() -> None:
    silence = np.zeros(2 * RATE_HZ, np.float32)
    model = np.concatenate([silence, singer(2)])
    follower = np.concatenate([silence, singer(2) * np.float32(0.5)])
    result, _ = matched(model, follower)
    assert not result[: 2 * RATE_HZ].any()
    noisy = follower + np.float32(0.01) * band(4)[0]
    result, _ = matched(model, noisy)
    assert np.array_equal(result[: 2 * RATE_HZ], noisy[: 2 * RATE_HZ])
