"""Streaming loudness meter, by blocks with gates.

Source: ITU-R BS.1770-5, annex 1: K-weighting, blocks of 400 ms every 100 ms, gates at -70 LUFS and at -10 LU.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heartvoice.audio.biquads import Biquads
from heartvoice.contracts.constants import STEM_RATE_HZ

Values = NDArray[np.float64]

HOPS_PER_BLOCK = 4
HOP_S = 0.1
ABSOLUTE_GATE_LUFS = -70.0
RELATIVE_GATE_LU = -10.0
LEAKAGE_DB = -50.0
"""Hops below this, relative to the loudest, have no part in the mean level of a voice."""
_OFFSET_LUFS = -0.691

_TABLE_RATE_HZ = 48_000
_K_WEIGHTING = (
    ((1.53512485958697, -2.69169618940638, 1.19839281085285), (1.0, -1.69065929318241, 0.73248077421585)),
    ((1.0, -2.0, 1.0), (1.0, -1.99004745483398, 0.99007225036621)),
)
"""Numerator and denominator of both filter stages at 48 kHz: the Recommendation's tables 1 and 2."""


def k_weighting(sample_rate_hz: int) -> list[tuple[Values, Values]]:
    """Design both K-weighting filters for a sample rate, by the bilinear transform."""
    ratio = sample_rate_hz / _TABLE_RATE_HZ
    above, below = np.array([1 + ratio, 1 - ratio]), np.array([1 - ratio, 1 + ratio])  # z at 48 kHz is above / below
    squares = (np.convolve(above, above), np.convolve(above, below), np.convolve(below, below))
    filters = []
    for stage in _K_WEIGHTING:
        top, bottom = (sum((c * square for c, square in zip(row, squares, strict=True)), np.zeros(3)) for row in stage)
        filters.append((top / bottom[0], bottom / bottom[0]))
    return filters


class KWeightedPower:
    """Power of several mono streams after K-weighting, in hops of 100 ms."""

    def __init__(self, n_streams: int, sample_rate_hz: int = STEM_RATE_HZ) -> None:
        self.hop = round(HOP_S * sample_rate_hz)
        self._filters = Biquads(np.array([np.concatenate(stage) for stage in k_weighting(sample_rate_hz)]), n_streams)

    def push(self, hop: NDArray[Any]) -> Values:
        """Process the next hop of every stream, [streams, hop]; return its mean squares, [streams].

        Raises:
            ValueError: the length is not `hop`.
        """
        if hop.shape[1] != self.hop:
            raise ValueError(f"hop: expected {self.hop} samples, got {hop.shape[1]}")
        power: Values = np.mean(np.square(self._filters.push(hop)), axis=1)
        return power


class Loudness:
    """Gated loudness of several mono streams, updated in hops of 100 ms."""

    def __init__(self, n_streams: int, sample_rate_hz: int = STEM_RATE_HZ) -> None:
        self._power = KWeightedPower(n_streams, sample_rate_hz)
        self.hop = self._power.hop
        self._hops: deque[Values] = deque(maxlen=HOPS_PER_BLOCK)
        self._blocks, self._n_blocks = np.zeros((n_streams, 1024)), 0

    def push(self, hop: NDArray[Any]) -> None:
        """Process the next hop of every stream, [streams, hop].

        Raises:
            ValueError: the length is not `hop`.
        """
        self._hops.append(self._power.push(hop))
        if len(self._hops) < HOPS_PER_BLOCK:
            return
        if self._n_blocks == self._blocks.shape[1]:
            self._blocks = np.concatenate([self._blocks, np.zeros_like(self._blocks)], axis=1)
        self._blocks[:, self._n_blocks] = sum(self._hops, np.zeros(len(hop))) / HOPS_PER_BLOCK
        self._n_blocks += 1

    def lufs(self) -> Values:
        """Return each stream's gated loudness so far, [streams]; -inf before any block passes the gates."""
        return np.array([_gated(blocks[: self._n_blocks]) for blocks in self._blocks])

    def programme_lufs(self) -> float:
        """Return the gated loudness of all streams as channels of one programme; -inf likewise."""
        return _gated(self._blocks[:, : self._n_blocks].sum(axis=0))


def _gated(blocks: Values) -> float:
    """Apply both gates to mean squares of blocks and return the loudness in LUFS."""
    loud = blocks[blocks > _mean_square(ABSOLUTE_GATE_LUFS)]
    if not len(loud):
        return -math.inf
    loud = loud[loud > loud.mean() * 10.0 ** (RELATIVE_GATE_LU / 10.0)]
    return _OFFSET_LUFS + 10.0 * math.log10(loud.mean())


def singing_power(power: Values) -> float:
    """Return the mean power of the hops with voice among those of a recording, [hops]; 0 for digital silence.

    Both gates are relative to the recording's own level, so that its gain makes no difference.
    """
    audible = power[power > power.max(initial=0.0) * 10.0 ** (LEAKAGE_DB / 10.0)]
    if not len(audible):
        return 0.0
    return float(audible[audible >= audible.mean() * 10.0 ** (RELATIVE_GATE_LU / 10.0)].mean())


def _mean_square(lufs: float) -> float:
    return float(10.0 ** ((lufs - _OFFSET_LUFS) / 10.0))
