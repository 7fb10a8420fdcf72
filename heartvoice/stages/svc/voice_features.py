"""The features of a voice, and the choice of its prompt: a stretch of the reference.

Design decision 9: the prompt is the stretch of `prompt_s` with the most voice. The original takes the first 25 s.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heartvoice.audio.levels import block_levels
from heartvoice.contracts.constants import MAX_PROMPT_S, STEM_RATE_HZ
from heartvoice.stages.f0 import F0_HOP, VOICED_ABOVE_HZ, median_hz
from heartvoice.stages.svc.pitch import Contour

Floats = NDArray[np.float32]
SAMPLES_PER_VALUE = STEM_RATE_HZ // 100
"""Samples at 44.1 kHz for one value of a contour."""


@dataclass(frozen=True, eq=False)
class VoiceFeatures:
    """The features of one voice. Its arrays are read-only, because conversions share them."""

    mel: Floats
    """float32 [P, M], log-mel of the prompt."""
    cond: Floats
    """float32 [P, D], the flow's condition from the prompt's content and pitch."""
    style: Floats
    """float32 [S], not normalised."""
    f0: Contour
    """[n], Hz, 100 a second, 0 = unvoiced, or too soft for a statistic (`f0.heard_contour`)."""
    sha256: str
    """Of the prompt's samples. It does not depend on how engines round."""
    prompt_s: float
    """Length of the prompt in seconds, ..."""
    start_s: float = 0.0
    """... and its start in the reference."""
    gain_db: float = 0.0
    """What brought the prompt to its level."""

    def __post_init__(self) -> None:
        for name in ("mel", "cond", "style", "f0"):
            view = getattr(self, name).view()  # the caller's own array stays as it is
            view.setflags(write=False)
            object.__setattr__(self, name, view)

    @property
    def n_frames(self) -> int:
        """Mel frames of the prompt."""
        return len(self.mel)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return sum(array.nbytes for array in (self.mel, self.cond, self.style, self.f0))

    @property
    def median_hz(self) -> float:
        """Median pitch; 0 if nothing is voiced."""
        return median_hz(self.f0)

    @property
    def voiced_share(self) -> float:
        """Voiced share of the prompt, 0 to 1."""
        return voiced_share(self.f0)


def voiced_share(f0: Contour) -> float:
    """Voiced share of a contour's values; 0 for an empty contour."""
    return float(np.mean(f0 > VOICED_ABOVE_HZ)) if f0.size else 0.0


def stretch_start(audio16: Floats, f0: Contour, prompt_s: float) -> int:
    """Find the stretch with the most voice.

    Args:
        audio16: float32 [N], the reference at 16 kHz.
        f0: its contour, 100 values a second.
        prompt_s: length of the stretch.

    Returns:
        The index of its first value in the contour; the earliest of equal ones. The sum is over magnitudes of voiced
        hops, not powers, so that one shout does not outweigh 10 s of singing; an offset is no magnitude. If nothing is
        voiced, all hops count.
    """
    n_values = len(audio16) // F0_HOP
    last = n_values - int(np.ceil(prompt_s * STEM_RATE_HZ / SAMPLES_PER_VALUE))
    if last <= 0:
        return 0
    level = 10 ** (block_levels(audio16, F0_HOP) / 20)
    voiced = f0[:n_values] > VOICED_ABOVE_HZ
    if voiced.any():
        level = level * voiced
    sums = np.concatenate([[0.0], np.cumsum(level)])
    return int(np.argmax(sums[n_values - last :] - sums[: last + 1]))


def from_the_start(n_samples: int, prompt_s: float) -> bool:
    """True if the prompt begins with the reference: it is no longer than that, or `prompt_s` is the original's."""
    return prompt_s >= MAX_PROMPT_S or n_samples <= round(prompt_s * STEM_RATE_HZ)
