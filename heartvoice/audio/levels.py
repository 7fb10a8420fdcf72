"""The level of the voice in a recording, from which thresholds and gains follow.

A gain changes no decision that is relative to it, and neither do an offset or pauses. The level is A-weighted, because
hum is much power and little loudness: 50 Hz count 30 dB less than 1 kHz.

Source: IEC 61672-1:2013, annex E (A-weighting).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heartvoice.audio.biquads import Biquads
from heartvoice.audio.dsp import Samples
from heartvoice.contracts.constants import F0_RATE_HZ, SPEECH_RATE_HZ

Levels = NDArray[np.float64]

SILENCE_DBFS = -90.0
"""A recording whose loudest parts stay below this is silent: that is the noise of 16 bits."""
VOICE_S, VOICE_SHARE = 1.0, 0.05
"""The voice's level is what the loudest second reaches; of a short recording, the loudest twentieth."""
HEARD_DB = 20.0
"""What is further below the voice's level than this counts in no statistic: pauses, hum, leakage of a band."""
ORDINARY_DBFS = (-30.0, -8.0)
"""Networks hear recordings of such a level as they are."""
_OFFSET_DB = -20.0
"""An offset that is further below the voice's level than this is left alone."""
_LEAST_POWER = 1e-14
_HOP = SPEECH_RATE_HZ // F0_RATE_HZ
_WINDOW = 4
"""Hops of one level, 40 ms."""
_BLOCK = 6000
"""Hops filtered at a time; bounds memory."""
_A_POLES_HZ = (20.598997, 20.598997, 107.65265, 737.86223, 12194.217, 12194.217)


def block_levels(audio: NDArray[np.floating[Any]], length: int) -> Levels:
    """Levels of the full blocks of `length` samples of [..., N] in dBFS, [..., N // length]; offsets do not count."""
    n = audio.shape[-1] // length
    blocks = audio[..., : n * length].reshape(*audio.shape[:-1], n, length)
    power = np.einsum("...j,...j->...", blocks, blocks, dtype=np.float64) / length
    power -= np.square(blocks.mean(axis=-1, dtype=np.float64))
    return power_levels(power)


def loudness_levels(audio16: Samples) -> Levels:
    """A-weighted levels around the values of an F0 contour.

    Args:
        audio16: float32 [N], mono at 16 kHz.

    Returns:
        float64 [N // 160 + 1] in dBFS, number j over 40 ms around sample 160 j.
    """
    n_hops = -(-len(audio16) // _HOP)
    sums = np.zeros(n_hops)
    weighting = Biquads(_a_weighting(), 1)
    first = float(audio16[:1].mean()) if len(audio16) else 0.0
    for start in range(0, n_hops, _BLOCK):
        block = audio16[start * _HOP : (start + _BLOCK) * _HOP].astype(np.float64) - first  # an offset makes no step
        weighted = weighting.push(block[None])[0]
        squares = np.square(np.pad(weighted, (0, -len(block) % _HOP))).reshape(-1, _HOP)
        sums[start : start + len(squares)] = squares.sum(axis=1)
    total = np.concatenate([[0.0], np.cumsum(sums)])
    middle = np.arange(len(audio16) // _HOP + 1)
    low = np.maximum(middle - _WINDOW // 2, 0)
    high = np.minimum(middle + _WINDOW // 2, n_hops)
    return power_levels((total[high] - total[low]) / (np.maximum(high - low, 1) * _HOP))


def voice_level(levels: NDArray[np.floating[Any]], per_s: float = F0_RATE_HZ) -> float:
    """Level in dBFS that the loudest second reaches, or the loudest twentieth of less than 20 s.

    Args:
        levels: [T] in dBFS.
        per_s: levels a second.
    """
    if not len(levels):
        return -np.inf
    rank = max(1, round(min(VOICE_S * per_s, VOICE_SHARE * len(levels))))
    return float(np.partition(levels, -rank)[-rank])


def heard(levels: NDArray[np.floating[Any]], level_dbfs: float | None = None) -> NDArray[np.bool_]:
    """Mark the levels [T] that count in statistics; none of a silent recording.

    Args:
        levels: in dBFS.
        level_dbfs: the voice's, if these are a part of its recording.
    """
    own = voice_level(levels) if level_dbfs is None else level_dbfs
    marked: NDArray[np.bool_] = levels > max(own - HEARD_DB, SILENCE_DBFS)
    return marked


def at_ordinary_level(audio: Samples, level_dbfs: float) -> Samples:
    """Bring a recording to the next ordinary level, without its offset; one that has it is returned as it is.

    Args:
        audio: float32 [N].
        level_dbfs: of its voice. A silent recording is returned as it is.
    """
    low, high = ORDINARY_DBFS
    offset = float(audio.mean(dtype=np.float64)) if len(audio) else 0.0
    gain_db = min(max(level_dbfs, low), high) - level_dbfs
    level = 10 ** (level_dbfs / 20)
    if gain_db == 0.0 and abs(offset) <= level * 10 ** (_OFFSET_DB / 20):
        return audio
    return at_level(audio, level_dbfs, level_dbfs + gain_db)


def at_level(audio: Samples, level_dbfs: float, wanted_dbfs: float) -> Samples:
    """Bring a recording to a level, without its offset.

    Args:
        audio: float32 [N].
        level_dbfs: of its voice. A silent recording is returned as it is.
        wanted_dbfs: level of the voice in the result.
    """
    if level_dbfs < SILENCE_DBFS or not len(audio):
        return audio
    offset = np.float32(audio.mean(dtype=np.float64))
    return ((audio - offset) * np.float32(10 ** ((wanted_dbfs - level_dbfs) / 20))).astype(np.float32, copy=False)


def power_levels(power: Levels) -> Levels:
    """Levels in dBFS of mean squares, at least -140."""
    levels: Levels = 10 * np.log10(np.maximum(power, _LEAST_POWER))
    return levels


@lru_cache(maxsize=1)
def _a_weighting() -> NDArray[np.float64]:
    """Second-order sections at 16 kHz by the bilinear transform, 0 dB at 1 kHz."""
    poles = -2 * np.pi * np.array(_A_POLES_HZ)
    poles = (2 * SPEECH_RATE_HZ + poles) / (2 * SPEECH_RATE_HZ - poles)
    zeros = np.repeat([1.0, 1.0, -1.0], 2)  # four of the analogue filter at 0 Hz, two at infinity
    pairs = [np.array([np.poly(pair) for pair in roots.reshape(3, 2)]) for roots in (zeros, poles)]
    sections: NDArray[np.float64] = np.concatenate(pairs, axis=1)
    at_1_khz = np.exp(-2j * np.pi * 1000.0 / SPEECH_RATE_HZ) ** np.arange(3)
    sections[0, :3] /= np.abs(np.prod((sections[:, :3] @ at_1_khz) / (sections[:, 3:] @ at_1_khz)))
    return sections
