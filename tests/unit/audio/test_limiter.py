from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import maximum_filter1d
from scipy.signal import resample_poly

from heartvoice.audio.limiter import (
    CEILING_DBTP,
    HALF_TAPS,
    MARGIN_DB,
    OVERSAMPLING,
    Limiter,
    TruePeak,
    limit,
    running_maximum,
)
from tests.support.music import singer, song, true_peak_dbtp

RATE_HZ = 48_000
N = RATE_HZ
T = np.arange(N) / RATE_HZ


def stereo(mono: np.ndarray) -> np.ndarray:
    return np.asarray(np.stack([mono, 0.7 * mono]), np.float32)


def noise(seed: int, peak: float) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-peak, peak, (2, N)).astype(np.float32)


def single(at: int, value: float) -> np.ndarray:
    impulse = np.zeros(N)
    impulse[at] = value
    return stereo(impulse)


HOSTILE = {
    "square wave, 12 dB over": stereo(4.0 * np.sign(np.sin(2 * np.pi * 997 * T))),
    "low square wave, 12 dB over": stereo(4.0 * np.sign(np.sin(2 * np.pi * 60 * T))),
    "peaks between samples": stereo(1.4 * np.sin(2 * np.pi * RATE_HZ / 4 * T + np.pi / 4)),
    "peaks between samples, 20 dB over": stereo(14.0 * np.sin(2 * np.pi * RATE_HZ / 4 * T + np.pi / 4)),
    "first sample": single(0, 30.0),
    "one sample": single(N // 2 + 1, 5.0),
    "last sample": single(N - 1, 5.0),
    "impulses across a block": single(4799, 5.0) - single(4800, 5.0),
    "white noise at full scale": noise(0, 1.0),
    "white noise, 20 dB over": noise(1, 10.0),
    "random signs": np.sign(noise(2, 1.0)),
    "step": stereo(3.0 * (T > 0.5)),
    "near half the rate": stereo(2.0 * np.sin(2 * np.pi * 0.49 * RATE_HZ * T + 0.3)),
    "bursts": noise(3, 8.0) * (np.sin(2 * np.pi * 7 * T) > 0.9),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_exceeds_the_ceiling_by_another_interpolator(name: str) -> None:
    audio = HOSTILE[name].astype(np.float32)
    limited = limit(audio)
    assert limited.shape == audio.shape
    assert true_peak_dbtp(audio) > CEILING_DBTP
    assert true_peak_dbtp(limited) <= CEILING_DBTP


def test_loud_peaks_are_brought_to_the_ceiling_and_not_far_below_it() -> None:
    for name in ("square wave, 12 dB over", "peaks between samples", "one sample"):
        assert true_peak_dbtp(limit(HOSTILE[name])) > CEILING_DBTP - MARGIN_DB - 0.1, name


def test_what_is_under_the_ceiling_comes_out_unchanged() -> None:
    mix = song(3, RATE_HZ)[0]
    assert true_peak_dbtp(mix) < CEILING_DBTP
    assert np.array_equal(limit(mix), mix)


def test_gain_is_exactly_one_away_from_a_peak() -> None:
    quiet = 0.1 * noise(4, 1.0)
    quiet[:, N // 2] = 4.0
    limited = limit(quiet)
    changed = np.flatnonzero((limited != quiet).any(axis=0))
    assert N // 2 - 300 <= changed[0] <= N // 2  # the look-ahead
    assert N // 2 <= changed[-1] <= N // 2 + round(0.4 * RATE_HZ)  # the release ends


def test_release_recovers_most_of_the_gain_within_200_ms_and_not_at_once() -> None:
    tone = stereo(0.3 * np.sin(2 * np.pi * 440 * T))
    tone[:, 1000:2000] *= 12.0

    def reduction_db(at: int) -> float:
        part = slice(at - 240, at + 240)
        return float(20 * np.log10(np.linalg.norm(tone[:, part]) / np.linalg.norm(limit(tone)[:, part])))

    assert reduction_db(1500) > 10.0
    assert reduction_db(2000 + 2400) > 3.0
    assert reduction_db(2000 + 9600) < 2.0


def test_both_channels_and_all_parts_get_the_same_gain() -> None:
    loud, soft = noise(5, 3.0), noise(6, 0.1)
    loud[1] *= 0.01
    limiter = Limiter(2)
    parts = np.concatenate([limiter.push(np.stack([loud, soft])), limiter.finish()], axis=-1)
    gains = parts.astype(np.float64) / np.stack([loud, soft])
    assert gains.min() < 0.5
    assert np.ptp(gains.reshape(4, -1), axis=0).max() < 1e-6


def test_report_gives_the_largest_reduction_and_the_true_peak_of_the_output() -> None:
    limiter = Limiter()
    audio = HOSTILE["peaks between samples"]
    limited = np.concatenate([limiter.push(audio[None]), limiter.finish()], axis=-1)[0]
    over_db = true_peak_dbtp(audio) - CEILING_DBTP
    assert limiter.reduction_db == pytest.approx(over_db + MARGIN_DB, abs=0.05)
    assert limiter.true_peak_dbtp == pytest.approx(true_peak_dbtp(limited), abs=0.05)


def test_silence_has_no_true_peak() -> None:
    limiter = Limiter()
    assert not limiter.push(np.zeros((1, 2, N), np.float32)).any()
    assert limiter.finish().shape[-1] > 0
    assert limiter.true_peak_dbtp == -np.inf


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 9000), min_size=1, max_size=12), st.integers(0, 2**31))
def test_the_samples_do_not_depend_on_the_chunks(sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = sum(sizes)
    envelope = np.repeat(rng.uniform(0, 3, n // 500 + 1), 500)[:n]
    audio = (rng.standard_normal((1, 2, n)) * envelope).astype(np.float32)
    limiter, at, pieces = Limiter(), 0, []
    for size in sizes:
        pieces.append(limiter.push(audio[..., at : at + size]))
        at += size
    streamed = np.concatenate([*pieces, limiter.finish()], axis=-1)[0]
    assert np.array_equal(streamed, limit(audio[0]))


def test_peaks_lie_where_an_oversampled_signal_has_them() -> None:
    audio = singer(1, RATE_HZ)[None, : 4800 * 10]
    meter = TruePeak(1)
    peaks = np.concatenate([meter.push(audio), meter.push(np.zeros((1, 16), np.float32))])[HALF_TAPS:]
    points = np.abs(resample_poly(audio[0].astype(np.float64), OVERSAMPLING, 1)).reshape(-1, OVERSAMPLING)
    between = points[:, 1:].max(axis=1)
    expected = np.maximum(np.maximum(points[:, 0], between), np.concatenate([[0.0], between[:-1]]))
    assert np.abs(peaks - expected)[: -2 * HALF_TAPS].max() < 0.01 * expected.max()


@pytest.mark.parametrize("size", [1, 3, 5, 8, 273, 500])
def test_a_running_maximum_is_scipys(size: int) -> None:
    values = np.random.default_rng(size).standard_normal(500)
    expected = maximum_filter1d(values, size)[size // 2 : size // 2 + 501 - size]
    assert np.array_equal(running_maximum(values, size), expected)
