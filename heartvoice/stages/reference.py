"""What a voice reference holds: somebody who speaks or sings, one voice, and no music behind it.

The thresholds were measured by benchmarks/references.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heartvoice.audio.levels import heard, loudness_levels
from heartvoice.config.presets import CampplusConfig
from heartvoice.contracts.constants import F0_RATE_HZ, SPEECH_RATE_HZ
from heartvoice.errors import InvalidRequestError
from heartvoice.stages.calibration import CALIBRATIONS, TITLES
from heartvoice.stages.f0 import F0_HOP, VOICED_ABOVE_HZ, Contour

Samples = NDArray[np.float32]

MIN_VOICED_SHARE = 0.05
"""A reference with less voice is refused. Speech has 30 to 60 %, singing more; noise 0 %, a band 3 %."""
END_S = 5.0
"""Length of the ends that are compared beside the halves: a second voice may be short."""
LEAST_PART_S = 2.0
"""Parts with less voice are not compared."""
BEHIND_SHARE = 0.006
"""Share of the power beside the harmonics of the voice, above which something else sounds with it."""
Embed = Callable[[Samples], Samples]
"""Returns the unit vector [D] of the voice in samples [N] at 16 kHz."""
STYLE_JUDGE = CampplusConfig.engine
"""The engine of the converter's style encoder, which is a second judge where its weights are real."""
_OFF = "reference_check can be off"
_HARMONICS = 3.5
"""Harmonics in which other sounds are looked for; higher ones move too much within a window."""
_NEAR = 0.3
"""Distance from a harmonic, relative to the pitch, within which the power is the voice's."""
_LOW_HZ, _LOW_PITCH_HZ = 30.0, 180.0
_WINDOWS = (2048, 1024)
"""Samples of a window for pitches below `_LOW_PITCH_HZ`, and above."""
_STEP = 3
"""Values of the contour between two windows."""
_LEAST_WINDOWS = 10


class ReferenceCheck:
    """Checks one reference, in two steps: by its pitch, and by its voice."""

    def __init__(self, audio16: Samples, mode: str, *, field: str = "voice") -> None:
        """Check nothing yet.

        Args:
            audio16: float32 [N], mono at 16 kHz.
            mode: one of `REFERENCE_CHECK_MODES`.
            field: name of the reference in messages.
        """
        self._audio, self._mode, self._field = audio16, mode, field
        self.warnings: list[str] = []
        self.facts: dict[str, Any] = {}
        """The measured numbers, for the report."""

    def hear(self, track: Callable[[Samples], Contour]) -> None:
        """Listen for a voice, and for music behind it.

        Raises:
            InvalidRequestError: nobody speaks or sings; in strict mode also if there is music.
        """
        if self._mode == "off":
            return
        f0 = np.where(heard(loudness_levels(self._audio)), track(self._audio), np.float32(0))
        share = float(np.mean(f0 > VOICED_ABOVE_HZ))
        self.facts["voiced_share"] = round(share, 4)
        if share < MIN_VOICED_SHARE:
            raise InvalidRequestError(
                f"{self._field}: expected somebody who speaks or sings at least {MIN_VOICED_SHARE:.0%} of the time, "
                f"got {share:.1%}: noise, instruments, a whisper or nobody; {_OFF}"
            )
        behind = share_behind(self._audio, f0)
        if behind is not None:
            self.facts["behind_share"] = round(behind, 4)
        if behind is not None and behind > BEHIND_SHARE:
            self._doubt(
                f"something behind the voice: {behind:.1%} of the power is beside its harmonics, music or a second"
                " voice; reference_separate takes music away"
            )

    def compare(self, judges: Mapping[str, Embed]) -> None:
        """Compare the parts of the reference with each other.

        Two voices are there if every judge of whom something was measured finds the same parts too unlike. What only
        some of them find is a warning, and refuses nothing.

        Args:
            judges: speaker encoders by engine.

        Raises:
            InvalidRequestError: in strict mode, if there are two voices.
        """
        asked = {engine: embed for engine, embed in judges.items() if engine in CALIBRATIONS}
        if self._mode == "off" or not asked:
            return
        unsure = ""
        for what, one, other in voice_parts(self._audio):
            said = {engine: self._unlike(what, engine, embed, one, other) for engine, embed in asked.items()}
            found = [each for each in said.values() if each]
            if len(found) == len(said):
                self._doubt(f"two voices: {'; '.join(found)}")
                return
            if found and not unsure:
                same = " and ".join(TITLES[engine] for engine, each in said.items() if not each)
                unsure = f"perhaps two voices: {'; '.join(found)}; {same} takes them for one"
        if unsure:
            self.warnings.append(f"{self._field}: {unsure}")

    def _unlike(self, what: str, engine: str, embed: Embed, one: Samples, other: Samples) -> str:
        """Return why two parts are different voices to a judge, or ""; adds its cosine to the facts."""
        cosine = float(embed(one) @ embed(other))
        least = CALIBRATIONS[engine].same_voice(min(len(one), len(other)) / SPEECH_RATE_HZ).minimum
        judge = self.facts.setdefault("judges", {}).setdefault(engine, {})
        judge[what] = {"cosine": round(cosine, 4), "least_of_one_voice": least}
        if cosine >= least:
            return ""
        return (
            f"the cosine of its {what} is {cosine:.2f}, and that of one voice at least {least:.2f} ({TITLES[engine]})"
        )

    def _doubt(self, warning: str) -> None:
        if self._mode == "strict":
            raise InvalidRequestError(
                f"{self._field}: expected one voice alone, got {warning}; reference_check is strict"
            )
        self.warnings.append(f"{self._field}: {warning}")


def voice_parts(audio16: Samples) -> list[tuple[str, Samples, Samples]]:
    """Parts of a reference [N] that should be one voice: its halves and its ends, with equal time of voice.

    Returns:
        Names and samples of two parts; none if there is too little voice.
    """
    marked = heard(loudness_levels(audio16))
    counts = np.cumsum(marked)
    n_heard = int(counts[-1])

    def place(count: int) -> int:
        return int(np.searchsorted(counts, count)) * F0_HOP

    parts = []
    middle, end = n_heard // 2, int(END_S * F0_RATE_HZ)
    if middle >= LEAST_PART_S * F0_RATE_HZ:
        parts.append(("halves", audio16[: place(middle)], audio16[place(middle) :]))
    if middle > end:
        parts.append(("ends", audio16[: place(end)], audio16[place(n_heard - end) :]))
    return parts


def share_behind(audio16: Samples, f0: Contour) -> float | None:
    """Share of the power beside the lowest harmonics of the voice, where it is steadiest.

    Args:
        audio16: float32 [N].
        f0: its contour, 0 where nobody is heard.

    Returns:
        The lowest tenth over windows of the contour's voiced values; None if there are too few.
    """
    shares = []
    for at in np.flatnonzero(f0 > 2 * _LOW_HZ)[::_STEP]:
        n = _WINDOWS[int(f0[at] >= _LOW_PITCH_HZ)]
        start = int(at) * F0_HOP - n // 2
        if start < 0 or start + n > len(audio16):
            continue
        power = np.square(np.abs(np.fft.rfft(audio16[start : start + n] * np.hanning(n))))
        order = np.arange(len(power)) * (SPEECH_RATE_HZ / n / float(f0[at]))  # of a bin, 1 is the pitch
        near = np.abs(order - np.maximum(1, np.round(order))) < _NEAR
        low = (order <= _HARMONICS) & (order * float(f0[at]) >= _LOW_HZ)
        shares.append(float(power[low & ~near].sum() / max(power[low].sum(), 1e-20)))
    return float(np.percentile(shares, 10)) if len(shares) >= _LEAST_WINDOWS else None
