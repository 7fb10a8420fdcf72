"""Front end of ECAPA-TDNN: log filter bank of a recording in dB.

The published front end computes in float32, and so does its filter bank here, whose rounded corners move values by more
than 1e-4 dB. Float32 FFTs of two libraries differ by more than that, too, in bands that lie far below the rest of their
frame. Here the spectrum is float64, which is between them.

Source: speaker_encoders spec, section 1.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heartvoice.audio.dsp import Samples, stft

RATE_HZ, WINDOW, HOP = 16_000, 400, 160
MIN_POWER = 1e-10
RANGE_DB = 80.0
"""Values lie at most this far below the loudest of the recording."""


def ecapa_power(audio: Samples) -> NDArray[np.float64]:
    """Compute the power spectrum of [N] at 16 kHz, float64 [1 + N // 160, 201]."""
    spectrum = stft(audio, WINDOW, HOP, window=_hamming(), pad=WINDOW // 2, pad_mode="constant")
    power: NDArray[np.float64] = np.square(spectrum.real) + np.square(spectrum.imag)
    return power


def ecapa_decibels(power: NDArray[np.floating[Any]], n_bands: int) -> Samples:
    """Turn the power spectrum [T, 201] of a whole recording into its log filter bank, float32 [T, n_bands] in dB."""
    decibels = 10.0 * np.log10(np.maximum(power @ _bank(n_bands), MIN_POWER))
    floored: Samples = np.maximum(decibels, decibels.max() - RANGE_DB).astype(np.float32)
    return floored


def ecapa_features(audio: Samples, n_bands: int) -> Samples:
    """Compute the network's input: the log filter bank with each band's mean over time removed.

    Args:
        audio: float32 [N], mono at 16 kHz, at least 0.1 s: the network needs more than four frames.
        n_bands: number of bands.

    Returns:
        float32 [1 + N // 160, n_bands], in dB. The first and last frame are centred on the recording's ends.
    """
    bank = ecapa_decibels(ecapa_power(audio), n_bands)
    features: Samples = bank - bank.mean(axis=0, dtype=np.float64).astype(np.float32)
    return features


def _hamming() -> NDArray[np.float64]:
    """Periodic Hamming window."""
    window: NDArray[np.float64] = 0.54 - 0.46 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    return window


@lru_cache(maxsize=4)
def _bank(n_bands: int) -> Samples:
    """Triangles [bins, bands], in single precision; each flank is as wide as the distance to the band below."""
    one, top = np.float32(1), np.float32(2595.0 * np.log10(1.0 + RATE_HZ / 2 / 700.0))
    index, last = np.arange(n_bands + 2, dtype=np.float32), np.float32(n_bands + 1)
    # Counted from either end, as the published corners are.
    mel = np.where(2 * index < n_bands + 2, top / last * index, top - top / last * (last - index))
    hz = np.float32(700) * (np.float32(10) ** (mel / np.float32(2595)) - one)
    centres, widths = hz[1:-1], np.diff(hz)[:-1]
    bins = np.linspace(0.0, RATE_HZ / 2, WINDOW // 2 + 1, dtype=np.float32)
    triangles: Samples = np.maximum(np.float32(0), one - np.abs((bins[:, None] - centres) / widths))
    return triangles
