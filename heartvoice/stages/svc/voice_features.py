"""What a conversion needs of a voice, and which stretch of its reference that is taken from.

Design decision 9: `prompt_s` takes the stretch with the most voice; 25 s from the start is the original's rule.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heartvoice.contracts.constants import MAX_PROMPT_S, STEM_RATE_HZ
from heartvoice.stages.f0 import F0_HOP, VOICED_ABOVE_HZ, median_hz
from heartvoice.stages.svc.pitch import Contour

Floats = NDArray[np.float32]
SAMPLES_PER_VALUE = STEM_RATE_HZ // 100
"""Samples at 44.1 kHz of one value of a contour."""


@dataclass(frozen=True, eq=False)
class VoiceFeatures:
    """One voice, ready to be sung with. Its arrays are read-only: conversions share them."""

    mel: Floats
    """float32 [P, M], the prompt's natural logarithms of mel magnitudes."""
    cond: Floats
    """float32 [P, D], the prompt's content and pitch as the flow's condition."""
    style: Floats
    """float32 [S], not normalised."""
    f0: Contour
    """[n], Hz, 100 a second, 0 = unvoiced."""
    sha256: str
    """Of the stretch's samples: the same in every process, whatever its engines round."""
    prompt_s: float
    """Length of the stretch in seconds, ..."""
    start_s: float = 0.0
    """... and where it lies in the reference."""

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
        """Bytes that the voice occupies."""
        return sum(array.nbytes for array in (self.mel, self.cond, self.style, self.f0))

    @property
    def median_hz(self) -> float:
        """Median pitch; 0 if nothing is voiced."""
        return median_hz(self.f0)

    @property
    def voiced_share(self) -> float:
        """Share of the stretch that is voiced, 0 to 1."""
        return voiced_share(self.f0)


def voiced_share(f0: Contour) -> float:
    """Share of a contour's values that are voiced; 0 of an empty one."""
    return float(np.mean(f0 > VOICED_ABOVE_HZ)) if f0.size else 0.0


def stretch_start(audio16: Floats, f0: Contour, prompt_s: float) -> int:
    """Where the stretch with the most voice begins.

    Args:
        audio16: float32 [N], the reference at 16 kHz.
        f0: its contour, 100 values a second.
        prompt_s: length of the stretch.

    Returns:
        First value of the contour that belongs to it; the earliest of equals. Magnitudes of the voiced hops are summed,
        not powers: one shout outweighs no 10 s of singing. Where nothing is voiced, all hops count.
    """
    n_values = len(audio16) // F0_HOP
    last = n_values - int(np.ceil(prompt_s * STEM_RATE_HZ / SAMPLES_PER_VALUE))
    if last <= 0:
        return 0
    hops = audio16[: n_values * F0_HOP].reshape(-1, F0_HOP)
    level = np.sqrt(np.einsum("ij,ij->i", hops, hops, dtype=np.float64) / F0_HOP)
    voiced = f0[:n_values] > VOICED_ABOVE_HZ
    if voiced.any():
        level = level * voiced
    sums = np.concatenate([[0.0], np.cumsum(level)])
    return int(np.argmax(sums[n_values - last :] - sums[: last + 1]))


def from_the_start(n_samples: int, prompt_s: float) -> bool:
    """Whether there is nothing to choose: the reference is no longer than the stretch, or the original's rule holds."""
    return prompt_s >= MAX_PROMPT_S or n_samples <= round(prompt_s * STEM_RATE_HZ)
