"""Cosines of one voice and of different ones, as measured. Pure Python.

Source: benchmarks/references.py on 21 recordings of speech and singing (seed_vc spec, section 20), with every voice at
its encoder's level. "Same" are two parts of one recording, made with one microphone in one session, which is the best
case; "different" are all 210 pairs of different recordings.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass


@dataclass(frozen=True)
class SameVoice:
    """Cosines between two parts of one recording."""

    seconds: float
    """Least length of two recordings for a comparison with these cosines."""
    parts: str
    minimum: float
    median: float


@dataclass(frozen=True)
class EqualError:
    """Where a judge takes as many different voices for one as it takes one voice for different ones."""

    material: str
    threshold: float
    """Cosine."""
    rate: float
    """Share of both errors."""


@dataclass(frozen=True)
class Calibration:
    """Measured cosines of one encoder."""

    title: str
    equal_errors: tuple[EqualError, ...]
    """Of `benchmarks/speaker_judges.py`: of recordings first, then of spoken lines against sung ones."""
    same: tuple[SameVoice, ...]
    """From long to short; the last one applies to all shorter recordings."""
    different: tuple[tuple[float, float], ...]
    """Cosine, and the share of different voices that reach it; the last is the highest of all pairs."""
    n_different: int = 210

    @property
    def highest_different(self) -> float:
        """Highest cosine of any pair of different recordings."""
        return self.different[-1][0]

    def same_voice(self, seconds: float) -> SameVoice:
        """Return the measured cosines of two parts of one recording of this length."""
        return next((same for same in self.same if seconds >= same.seconds), self.same[-1])

    def share_reached(self, cosine: float) -> float:
        """Share of pairs of different voices that reach the cosine, interpolated linearly."""
        if cosine <= self.different[0][0]:
            return self.different[0][1]
        for (low, more), (high, fewer) in itertools.pairwise(self.different):
            if cosine <= high:
                return more + (fewer - more) * (cosine - low) / (high - low)
        return 0.0


_HALVES = "the halves of one recording"
_FIVE, _THREE = (f"the first and last {seconds} s of one recording" for seconds in (5, 3))
TITLES = {"resemblyzer": "Resemblyzer", "campplus": "CAMPPlus", "ecapa": "ECAPA-TDNN", "wavlm": "WavLM"}
"""Names for readers, by the engine's name in the preset."""
_RECORDED, _SUNG = "halves of recordings", "synthetic voices, spoken against sung"
CALIBRATIONS: dict[str, Calibration] = {
    "campplus": Calibration(
        TITLES["campplus"],
        (EqualError(_RECORDED, 0.687, 0.0), EqualError(_SUNG, 0.580, 0.0076)),
        (
            SameVoice(10.0, _HALVES, 0.711, 0.853),
            SameVoice(5.0, _FIVE, 0.706, 0.801),
            SameVoice(3.0, _THREE, 0.506, 0.671),
        ),
        ((-0.023, 0.95), (0.208, 0.5), (0.5, 0.057), (0.52, 0.05), (0.589, 0.01), (0.664, 1 / 210)),
    ),
    "resemblyzer": Calibration(
        TITLES["resemblyzer"],
        (EqualError(_RECORDED, 0.805, 0.0024), EqualError(_SUNG, 0.718, 0.0189)),
        (
            SameVoice(10.0, _HALVES, 0.807, 0.890),
            SameVoice(5.0, _FIVE, 0.792, 0.879),
            SameVoice(3.0, _THREE, 0.663, 0.782),
        ),
        (
            (0.493, 0.95), (0.5, 0.938), (0.6, 0.705), (0.648, 0.5), (0.789, 0.05), (0.8, 0.024), (0.828, 0.01),
            (0.838, 1 / 210),
        ),
    ),
}  # fmt: skip
"""Calibrations by the engine's name in the preset; of engines that are not here nothing was measured. The halves were 3
to 14 s long."""
