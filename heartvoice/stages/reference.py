"""What a voice reference holds: somebody who speaks or sings, one voice, and no music behind it.

The thresholds were measured by benchmarks/references.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heartvoice.audio.levels import heard, loudness_levels
from heartvoice.contracts.constants import F0_RATE_HZ, SPEECH_RATE_HZ
from heartvoice.errors import InvalidRequestError
from heartvoice.stages.calibration import CALIBRATIONS
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

    def compare(self, embed: Callable[[Samples], Samples], encoder: str) -> None:
        """Compare the parts of the reference with each other.

        Args:
            embed: unit vector [D] of samples [M] at 16 kHz.
            encoder: its name.

        Raises:
            InvalidRequestError: in strict mode, if there are two voices.
        """
        calibration = CALIBRATIONS.get(encoder)
        if self._mode == "off" or calibration is None:
            return
        for what, one, other in voice_parts(self._audio):
            cosine = float(embed(one) @ embed(other))
            seconds = min(len(one), len(other)) / SPEECH_RATE_HZ
            self.facts[f"{what}_cosine"] = round(cosine, 4)
            least = calibration.same_voice(seconds).minimum
            if cosine < least:
                self._doubt(
                    f"two voices: the cosine of its {what} is {cosine:.2f}, and that of one voice at least {least:.2f}"
                    f" ({calibration.title})"
                )
                return

    def _doubt(self, warning: str) -> None:
        if self._mode == "strict":
            raise InvalidRequestError(f"{self._field}: expected one voice alone, got {warning}; refused by strict")
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
