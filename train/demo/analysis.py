"""WORLD's analysis of spoken words: envelopes and noise on a grid of frequencies, words cut out of their lists.

Source: M. Morise, F. Yokomori, K. Ozawa, "WORLD: a vocoder-based high-quality speech synthesis system", 2016.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyworld
from numpy.typing import NDArray
from scipy.signal import butter, sosfiltfilt

from train.demo.speech import SpokenList
from train.voices.kokoro import RATE_HZ

Wave = NDArray[np.float64]

STEP_S = 0.005
N_BANDS = 80
_TOP_HZ = 12_000.0
_QUIET_DB = -48.0
"""Below a word's loudest frame: silence."""


def _mel(hz: NDArray[np.float64] | float) -> NDArray[np.float64]:
    return np.asarray(2595.0 * np.log10(1.0 + np.asarray(hz) / 700.0))


BANDS_HZ: Wave = 700.0 * (10.0 ** (np.linspace(0.0, float(_mel(_TOP_HZ)), N_BANDS) / 2595.0) - 1.0)
"""Frequencies of the grid, evenly spaced in mel."""


@dataclass(frozen=True)
class SpokenWord:
    """A word, one row every 5 ms."""

    word: str
    envelope: Wave
    """[T, N_BANDS]: natural logarithm of WORLD's power spectrum."""
    noise: Wave
    """[T, N_BANDS]: aperiodicity, 0 to 1."""
    voiced: NDArray[np.bool_]
    """[T]."""
    sonority: Wave
    """[T]: level in dB between 300 Hz and 3 kHz, below the word's loudest."""
    letters: Wave
    """[L + 1]: about where its letters begin, in rows."""


def analyse(spoken: SpokenList) -> list[SpokenWord]:
    """Analyse the words of a list."""
    audio = spoken.audio.astype(np.float64)
    f0, time = _pitch(audio)
    spectrum = pyworld.cheaptrick(audio, f0, time, RATE_HZ)
    aperiodicity = pyworld.d4c(audio, f0, time, RATE_HZ)
    envelope, noise = on_grid(np.log(spectrum)), on_grid(aperiodicity)
    voiced = aperiodicity[:, 1] < 0.99  # where D4C hears no voice, aperiodicity is 1
    loudness = _level(audio, 60.0, 11_000.0, len(f0))
    sonority = _level(audio, 300.0, 3000.0, len(f0))
    words = []
    for index, word in enumerate(spoken.words):
        start, end = _extent(spoken, index, loudness)
        letters = spoken.starts_s[index] / STEP_S
        letters = np.clip(letters - start, 0, end - start)
        rows = slice(start, end)
        words.append(
            SpokenWord(
                word,
                envelope[rows],
                noise[rows],
                voiced[rows],
                sonority[rows] - sonority[rows].max(),
                letters,
            )
        )
    return words


def _pitch(audio: Wave) -> tuple[Wave, Wave]:
    """Return a pitch for every row, and the rows' times; D4C says where there is a voice."""
    f0, time = pyworld.dio(audio, RATE_HZ, 60.0, 450.0, frame_period=1000 * STEP_S, allowed_range=0.2)
    f0 = pyworld.stonemask(audio, f0, time, RATE_HZ)
    known = np.flatnonzero(f0 > 0)
    return np.interp(np.arange(len(f0)), known, f0[known]), time


def on_grid(rows: Wave) -> Wave:
    """Interpolate rows [T, bin] from 0 Hz to half the rate onto `BANDS_HZ`, each the mean of its neighbourhood."""
    bins = np.linspace(0.0, RATE_HZ / 2, rows.shape[1])
    total = np.concatenate([np.zeros((len(rows), 1)), np.cumsum(rows, axis=1)], axis=1)
    middle = (BANDS_HZ[1:] + BANDS_HZ[:-1]) / 2
    low = np.searchsorted(bins, np.concatenate([[0.0], middle]))
    high = np.maximum(np.searchsorted(bins, np.concatenate([middle, [_TOP_HZ + 1]])), low + 1)
    low = np.minimum(low, len(bins) - 1)
    high = np.minimum(np.maximum(high, low + 1), len(bins))
    return np.asarray((total[:, high] - total[:, low]) / (high - low))


def _level(audio: Wave, low_hz: float, high_hz: float, n_rows: int) -> Wave:
    band = sosfiltfilt(butter(2, (low_hz, high_hz), "bandpass", fs=RATE_HZ, output="sos"), audio)
    hop, width = round(STEP_S * RATE_HZ), round(0.02 * RATE_HZ)
    power = np.convolve(band**2, np.hanning(width) / width, "same")
    power = np.pad(power, (0, max(0, n_rows * hop - len(power))))[: n_rows * hop : hop]
    return np.asarray(10 * np.log10(power + 1e-12))


def _extent(spoken: SpokenList, index: int, loudness: Wave) -> tuple[int, int]:
    """Return first row and end of a word: between the quietest rows of the stops around it, without silence."""
    start, end = _stop(spoken, index - 1, loudness), _stop(spoken, index, loudness)
    inside = loudness[start:end]
    heard = np.flatnonzero(inside > inside.max() + _QUIET_DB)
    return start + max(int(heard[0]) - 2, 0), start + min(int(heard[-1]) + 3, len(inside))


def _stop(spoken: SpokenList, after: int, loudness: Wave) -> int:
    """Return the quietest row of the stop after a word; -1 is the beginning."""
    if after < 0:
        return 0
    if after == len(spoken.words) - 1:
        return len(loudness)
    one, other = spoken.starts_s[after], spoken.starts_s[after + 1]
    first = int((one[-2] + one[-1]) / 2 / STEP_S)
    last = int((other[0] + 0.03) / STEP_S)
    smooth = np.convolve(loudness, np.ones(5) / 5, "same")
    return first + int(np.argmin(smooth[first : max(last, first + 1)]))
