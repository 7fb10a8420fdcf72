"""Channels that cancel each other, and how their mid channel keeps what is in them.

The mean of two channels of opposite polarity is silence: a cable with swapped wires, or a "widened" voice. While the
channels of some vocals cancel, the right one counts with its sign turned. The mix turns it back, so the new voice
stands where the old one did.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from heartvoice.audio.levels import HEARD_DB, SILENCE_DBFS, power_levels, voice_level
from heartvoice.contracts.constants import STEM_RATE_HZ

Samples = NDArray[np.float32]
Values = NDArray[np.float64]

CANCELLED_DB = -10.0
"""The mean of two channels that is this far below the louder one has lost what is in them: they cancel each other."""
_LOST = 10 ** (CANCELLED_DB / 10)
_NEARLY_LOST = 10 ** (-5 / 10)
"""Over the last moments, the mean of channels that begin to cancel."""
_HEARD = 10 ** (-HEARD_DB / 10)
_SILENT = 10 ** (SILENCE_DBFS / 10)
HOP_S = 0.1
_CANCELLED_SHARE = 0.1
"""A recording whose channels cancel in more of its audible time than this has no use for their mean."""
_MEMORY_S = 0.3
"""Time constant of the powers that decide, so that no single sound does."""


def cancelled_side(stereo: Samples, sample_rate_hz: int) -> int | None:
    """Return the index of the louder channel if the channels cancel each other, over all or in many places.

    Args:
        stereo: float32 [2, N], at least one sample.
        sample_rate_hz: its rate.
    """
    block = max(1, min(round(HOP_S * sample_rate_hz), stereo.shape[1]))
    left, right, both = (_covariances(stereo[a], stereo[b], block) for a, b in ((0, 0), (1, 1), (0, 1)))
    side = int(right.sum() > left.sum())
    louder, mean = (left, right)[side], (left + right + 2 * both) / 4
    if mean.sum() < louder.sum() * _LOST:
        return side
    loudest = np.maximum(left, right)
    levels = power_levels(loudest)
    audible = levels > max(voice_level(levels, 1 / HOP_S) - HEARD_DB, SILENCE_DBFS)
    return side if (audible & (mean < loudest * _LOST)).sum() > _CANCELLED_SHARE * audible.sum() else None


def _covariances(a: Samples, b: Samples, block: int) -> Values:
    """Covariances of two channels [N] in blocks; their offsets do not count."""
    n = len(a) // block
    first, second = (channel[: n * block].reshape(n, block) for channel in (a, b))
    products = np.einsum("ij,ij->i", first, second, dtype=np.float64) / block
    result: Values = products - first.mean(axis=1, dtype=np.float64) * second.mean(axis=1, dtype=np.float64)
    return result


class PolarityFollower:
    """Sign of the right channel of stereo vocals at 44.1 kHz, hop by hop of 0.1 s.

    A hop's sign follows from the hops before it, so a stream cut in any way gets the same signs. It becomes -1 when the
    mean of the channels is `CANCELLED_DB` below the louder one, and 1 when their sum is louder than their difference:
    0.1 s after the first sound, 0.2 to 0.5 s after a change. It changes from one sample to the next, so that turning
    back is exact.
    """

    def __init__(self, *, inverted: bool = False) -> None:
        """`inverted`: begin with -1."""
        self.hop = round(HOP_S * STEM_RATE_HZ)
        self._decay = math.exp(-HOP_S / _MEMORY_S)
        self._sign = -1.0 if inverted else 1.0
        self._at = 0
        self._sums, self._products = np.zeros(2), np.zeros((2, 2))
        """Over the samples of this hop."""
        self._covariance = np.zeros((2, 2))
        """Over the audible hops before, the last ones most."""
        self._loudest = 0.0
        self.inverted_s = 0.0
        """Seconds so far that were audible and had the sign -1."""

    def push(self, stereo: Samples) -> Samples | None:
        """Follow the next samples [2, N]; return the right channel's signs [N], or None if all are 1."""
        n, at = stereo.shape[1], 0
        signs: Samples | None = None
        while at < n:
            end = min(n, at + self.hop - self._at)
            if self._sign < 0:
                signs = np.ones(n, np.float32) if signs is None else signs
                signs[at:end] = self._sign
            piece = stereo[:, at:end].astype(np.float64)
            self._sums += piece.sum(axis=1)
            self._products += piece @ piece.T
            self._at += end - at
            at = end
            if self._at == self.hop:
                self._decide()
        return signs

    def warnings(self) -> list[str]:
        """What was done, for the report."""
        if not self.inverted_s:
            return []
        return [
            f"vocals: left and right cancel each other, for {self.inverted_s:.1f} s in all; there their difference was "
            "converted, not their sum"
        ]

    def _decide(self) -> None:
        """Choose the next hop's sign. Offsets have no part in it, and neither have rests."""
        here = (self._products - np.outer(self._sums, self._sums) / self.hop) / self.hop
        self._sums[:], self._products[:], self._at = 0.0, 0.0, 0
        level = float(here.max())
        self._loudest = max(self._loudest, level)
        if level <= max(self._loudest * _HEARD, _SILENT):
            return
        if self._sign < 0:
            self.inverted_s += HOP_S
        self._covariance = self._covariance * self._decay + here
        if _lost(here) < _LOST and _lost(self._covariance) < _NEARLY_LOST:
            self._sign = -1.0
        elif here[0, 1] > 0 and self._covariance[0, 1] > 0:
            self._sign = 1.0


def _lost(covariance: Values) -> float:
    """Power of the channels' mean, in relation to the louder channel."""
    return float(covariance.sum() / 4 / covariance.max())


def turned(stereo: Samples, signs: Samples | None) -> Samples:
    """Return stereo [2, N] with the right channel times its signs [N]; as it is with None."""
    return stereo if signs is None else np.stack([stereo[0], stereo[1] * signs])
