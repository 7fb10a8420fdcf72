from __future__ import annotations

import numpy as np
import pyloudnorm
import pytest
from scipy.signal import freqz

from heartvoice.audio.loudness import Loudness, k_weighting
from tests.support.music import band, singer, speaker

RATE_HZ = 44_100
HOP = 4410


def measure(*streams: np.ndarray) -> np.ndarray:
    loudness = Loudness(len(streams))
    for at in range(0, streams[0].shape[-1] - HOP + 1, HOP):
        loudness.push(np.stack([stream[at : at + HOP] for stream in streams]))
    return loudness.lufs()


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
