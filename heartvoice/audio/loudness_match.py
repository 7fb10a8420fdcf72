"""The gain that gives new vocals the loudness of the old ones, phrase by phrase.

For each hop of 100 ms the gain is the ratio of the old vocals' power to that of the new ones, both K-weighted, over the
nearest hops with singing, 5 s on each side. So a converter that is too soft or too loud by any number of dB is right
from the first word, a converter that levels verse and chorus gets their difference back, and rests have no part in it.
The loudness of the recording makes no difference: what counts as singing depends on the loudest of the old vocals.

Source: ITU-R BS.1770-5, annex 1 (K-weighting, relative gate).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heartvoice.audio.loudness import KWeightedPower, singing_power

Samples = NDArray[np.float32]
Values = NDArray[np.float64]

MAX_GAIN_DB = 40.0
"""A converter that is further off has failed; the report warns of it."""
REACH = 50
"""Hops with singing on either side that a gain is measured on."""
LOOKAHEAD = 10
"""Hops that a live match hears before it gives a hop its gain."""
_SINGING_DB = -20.0
"""Hops above this, relative to the mean of the singing, are singing. A soft verse is; the band's leakage is not."""
_ABSENT_DB = -MAX_GAIN_DB - 20.0
"""Hops of new vocals below this, relative to the old ones, are missing rather than soft."""


class LoudnessMatch:
    """Gains for the hops of new vocals, as both streams come.

    An exact match hears all old vocals before it gives a gain, so it knows what in them is singing. A live one judges
    by what came up to one second after the hop. The gain of equal streams is exactly 1. New vocals are silent where the
    old ones are digital silence.
    """

    def __init__(self, *, live: bool = False) -> None:
        self._live = live
        self._meters = (KWeightedPower(1), KWeightedPower(1))
        self._powers = (_Growing(), _Growing())
        self._silent: list[bool] = []
        self._complete = self._ended = False
        self._given = 0
        self._last: float | None = None
        self._singing = np.empty(0, np.intp)
        self.lowest_db, self.highest_db = 0.0, 0.0
        self._measured = False
        self.missed_db = 0.0
        """Largest gain beyond `MAX_GAIN_DB` that was wanted and not given."""

    @property
    def is_missing(self) -> bool:
        """True if there was old singing, and none of it has new vocals."""
        return len(_singing(self._powers[0].values)) > 0 and not self._measured

    @property
    def hop(self) -> int:
        """Samples of a hop."""
        return self._meters[0].hop

    def hear_old(self, hop: Samples) -> None:
        """Measure the next hop [hop] of the old vocals."""
        self._powers[0].add(float(self._meters[0].push(hop[None])[0]))
        self._silent.append(not hop.any())

    def hear_new(self, hop: Samples) -> None:
        """Measure the next hop [hop] of the new vocals."""
        self._powers[1].add(float(self._meters[1].push(hop[None])[0]))

    def end_old(self) -> None:
        """Take note that all old vocals were heard."""
        if not self._complete:
            self._complete = True
            self._singing = _singing(self._powers[0].values)

    def end(self) -> None:
        """Take note that both streams were heard whole; all gains are known now."""
        self.end_old()
        self._ended = True

    @property
    def n_ready(self) -> int:
        """Hops whose gain is known and was not given yet."""
        n_heard = min(len(power) for power in self._powers)
        if self._ended:
            return n_heard - self._given
        if self._live:
            return max(0, n_heard - LOOKAHEAD - self._given)
        heard = self._counted(n_heard)
        return max(0, int(heard[-REACH]) - self._given) if self._complete and len(heard) >= REACH else 0

    def apply(self, hop: Samples) -> Samples:
        """Scale the next hop [hop] of the new vocals that is ready.

        Raises:
            ValueError: none is ready.
        """
        if self.n_ready < 1:
            raise ValueError("hop: expected one whose gain is known")
        at = self._given
        self._given += 1
        gain = 0.0 if self._is_silent(at) else self._gain(at)
        before = gain if self._last is None else self._last
        self._last = gain
        if before == gain == 1.0:
            return hop
        if before > 0 and gain > 0:
            ramp = np.geomspace(before, gain, self.hop + 1)[1:]
        else:
            ramp = np.linspace(before, gain, self.hop + 1)[1:]
        scaled: Samples = (hop * ramp).astype(np.float32)
        return scaled

    # -------------------------------------------------------------------------------------------------------- private

    def _is_silent(self, at: int) -> bool:
        """True if the old vocals are digital silence from one hop before to one hop after this one."""
        return all(self._silent[max(0, at - 1) : at + 2])

    def _counted(self, n_heard: int) -> NDArray[np.intp]:
        """Indices of the hops below `n_heard` with old singing, for which there is a new one."""
        old, new = (power.values[:n_heard] for power in self._powers)
        singing = _singing(old) if self._live else self._singing[: np.searchsorted(self._singing, n_heard)]
        found: NDArray[np.intp] = singing[new[singing] > old[singing] * 10.0 ** (_ABSENT_DB / 10.0)]
        return found

    def _gain(self, at: int) -> float:
        """The factor of a hop; what the hop before had if nothing was sung yet, and 1 before that."""
        n_heard = min(len(power) for power in self._powers)
        # What else was heard by now depends on how the streams were cut, and has no part in a live gain.
        counted = self._counted(min(n_heard, at + LOOKAHEAD + 1) if self._live else n_heard)
        here = int(np.searchsorted(counted, at))
        near = counted[max(0, here - REACH) : here + REACH]
        if not len(near):
            return self._last or 1.0
        weights = 1.0 - np.abs(np.arange(len(near)) - min(here, REACH)) / (REACH + 1)
        old, new = (float(weights @ power.values[near]) for power in self._powers)
        wanted_db = 10.0 * float(np.log10(old / new))
        given_db = min(max(wanted_db, -MAX_GAIN_DB), MAX_GAIN_DB)
        self.missed_db = max(self.missed_db, abs(wanted_db - given_db))
        self.lowest_db = min(self.lowest_db, given_db) if self._measured else given_db
        self.highest_db = max(self.highest_db, given_db) if self._measured else given_db
        self._measured = True
        return float(10.0 ** (given_db / 20.0))


class _Growing:
    """Values that are added one by one, as an array."""

    def __init__(self) -> None:
        self._values, self._n = np.zeros(1024), 0

    def __len__(self) -> int:
        return self._n

    def add(self, value: float) -> None:
        if self._n == len(self._values):
            self._values = np.concatenate([self._values, np.zeros_like(self._values)])
        self._values[self._n] = value
        self._n += 1

    @property
    def values(self) -> Values:
        return self._values[: self._n]


def _singing(power: Values) -> NDArray[np.intp]:
    """Indices of the hops with singing."""
    return np.flatnonzero(power > singing_power(power) * 10.0 ** (_SINGING_DB / 10.0))
