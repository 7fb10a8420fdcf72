"""Meaning of a cosine between two voices, by measurement. Pure Python; part of the base install.

Source: seed_vc spec, section 20: 21 recordings of speech and singing. "Same" are two parts of one recording, made with
one microphone in one session, which is the best case; "different" are all 210 pairs of different recordings.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

from heartvoice.errors import InvalidRequestError

RELIABLE_S = 5.0
"""Least length of the shorter recording; below it the cosines of one voice vary too much."""
Verdict = Literal["same", "different", "undecided"]
RARE = 0.05
"""Least share of different voices that reach a cosine, for the verdict "different"."""
_ROUNDING = 1e-3
"""Tolerance for cosines above 1, by rounding."""


@dataclass(frozen=True)
class SameVoice:
    """Cosines between two parts of one recording."""

    seconds: float
    """Least length of two recordings for a comparison with these cosines."""
    parts: str
    minimum: float
    median: float


@dataclass(frozen=True)
class Calibration:
    """Measured cosines of one encoder."""

    title: str
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
CALIBRATIONS: dict[str, Calibration] = {
    "campplus": Calibration(
        "CAMPPlus",
        (
            SameVoice(10.0, _HALVES, 0.765, 0.852),
            SameVoice(5.0, _FIVE, 0.662, 0.794),
            SameVoice(3.0, _THREE, 0.553, 0.677),
        ),
        ((-0.02, 0.95), (0.22, 0.5), (0.5, 0.067), (0.52, 0.05), (0.59, 0.01), (0.648, 1 / 210)),
    ),
    "resemblyzer": Calibration(
        "Resemblyzer",
        (
            SameVoice(10.0, _HALVES, 0.817, 0.898),
            SameVoice(5.0, _FIVE, 0.788, 0.851),
            SameVoice(3.0, _THREE, 0.586, 0.783),
        ),
        (
            (0.45, 0.95), (0.5, 0.89), (0.6, 0.56), (0.62, 0.5), (0.78, 0.05), (0.8, 0.029), (0.83, 0.01),
            (0.845, 1 / 210),
        ),
    ),
}  # fmt: skip
"""Calibrations by the engine's name in the preset. The halves were 3 to 14 s long."""


def verdict(engine: str, cosine: float, seconds: float) -> Verdict:
    """Decide: same voice, different voices, or undecided.

    Args:
        engine: the encoder's engine; an unknown one is undecided.
        cosine: between two of its vectors.
        seconds: length of the shorter recording.
    """
    _check(cosine)
    calibration = CALIBRATIONS.get(engine)
    if calibration is None:
        return "undecided"
    if cosine > calibration.highest_different:
        return "same"
    common = calibration.share_reached(cosine) >= RARE
    return "different" if common and cosine < calibration.same_voice(seconds).minimum else "undecided"


def meaning(engine: str, cosine: float, seconds: float) -> str:
    """Describe a cosine in words.

    Args:
        engine: the encoder's engine; for an unknown one only the number is given.
        cosine: between two of its vectors.
        seconds: length of the shorter recording.

    Raises:
        InvalidRequestError: the cosine is not between -1 and 1.
    """
    decided = verdict(engine, cosine, seconds)
    calibration = CALIBRATIONS.get(engine)
    if calibration is None:
        return f"Cosine {cosine:.2f}; nothing was measured of the encoder {engine!r}, so this decides nothing."
    same, share = calibration.same_voice(seconds), _percent(calibration.share_reached(cosine))
    pairs = f"{calibration.n_different} pairs of different recordings"
    reached = f"{share} of {pairs} are this much alike or more with {calibration.title}"
    if decided == "same":
        text = (
            f"Probably the same voice: none of {pairs} came above {calibration.highest_different:.3f} with"
            f" {calibration.title}; the median of {same.parts} is {same.median:.3f}."
        )
    elif decided == "different":
        text = (
            f"Probably different voices: {reached}, while {same.parts} never came below {same.minimum:.3f}. The same"
            " voice on another day, or singing, may."
        )
    else:
        text = f"Undecided: {reached}; {same.parts} came down to {same.minimum:.3f}, and two recordings may go lower."
    if seconds < RELIABLE_S:
        text += f" Only {seconds:.1f} s long: under {RELIABLE_S:g} s the same voice scatters widely."
    return text


def _percent(share: float) -> str:
    if share >= 0.945:
        return "nearly all"
    return "less than 1 %" if share < 0.005 else f"about {100 * share:.0f} %"


def _check(cosine: float) -> None:
    if not abs(cosine) <= 1 + _ROUNDING:  # NaN fails too
        raise InvalidRequestError(f"cosine: expected -1 to 1, got {cosine!r}")
