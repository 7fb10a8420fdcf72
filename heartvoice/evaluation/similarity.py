"""Meaning of a cosine between two voices, by measurement. Pure Python; part of the base install."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from heartvoice.errors import InvalidRequestError
from heartvoice.stages.calibration import CALIBRATIONS, TITLES

RELIABLE_S = 5.0
"""Least length of the shorter recording; below it the cosines of one voice vary too much."""
Verdict = Literal["same", "different", "undecided"]
RARE = 0.05
"""Least share of different voices that reach a cosine, for the verdict "different"."""
DEFAULT_JUDGES = ("resemblyzer", "campplus")
"""Engines that decide together wherever the weights of both are there."""
_ROUNDING = 1e-3
"""Tolerance for cosines above 1, by rounding."""


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


@dataclass(frozen=True)
class Decision:
    """What the judges say together."""

    verdict: Verdict
    """That of all who were asked, if they agree; else undecided."""
    judges: dict[str, Verdict]
    """What each says, by engine. Judges of whom nothing was measured are not asked."""
    missing: dict[str, str]
    """Default judges who could not be asked, by engine, and why."""

    @property
    def text(self) -> str:
        """The decision in words, with the judges' names."""
        if not self.judges:
            return f"no judge decided; missing: {self._missing}"
        said = ", ".join(f"{TITLES[engine]} {verdict}" for engine, verdict in self.judges.items())
        if len(self.judges) > 1:
            return f"{self.verdict} ({said})"
        return f"{self.verdict}, by one judge alone ({said}); missing: {self._missing}"

    @property
    def _missing(self) -> str:
        return "; ".join(f"{TITLES[engine]}: {why}" for engine, why in self.missing.items()) or "none"


def decide(verdicts: Mapping[str, Verdict], reasons: Mapping[str, str]) -> Decision:
    """Decide by several judges.

    Args:
        verdicts: of each judge, by engine.
        reasons: why other judges could not be asked, by engine.
    """
    asked = {engine: said for engine, said in verdicts.items() if engine in CALIBRATIONS}
    missing = {engine: reasons.get(engine, "not asked") for engine in DEFAULT_JUDGES if engine not in asked}
    agreed = set(asked.values())
    return Decision(agreed.pop() if len(agreed) == 1 else "undecided", asked, missing)


def thresholds(engine: str) -> str:
    """Describe the thresholds of equal error of a judge; empty if nothing was measured of it."""
    calibration = CALIBRATIONS.get(engine)
    if calibration is None:
        return ""
    each = [f"{made.threshold:.2f} of {made.material} ({made.rate:.1%} wrong)" for made in calibration.equal_errors]
    return f"{calibration.title}'s threshold of equal error: {', '.join(each)}."


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
    text += f" {thresholds(engine)}"
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
