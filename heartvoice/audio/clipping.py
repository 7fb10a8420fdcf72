"""Finds sound that was cut off at full scale."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]

FULL_SCALE = 0.999
_MANY = 1e-4
"""Share of clipped samples above which a recording has a warning."""


def share_clipped(level: Samples) -> float:
    """Return the share of samples, given their absolute values, that are at full scale because the sound ends there."""
    if float(level.max()) > 1.0:
        # Floats go on above full scale. Clipped sound that was resampled or coded since crowds around it.
        around, below = (int(np.sum((low <= level) & (level < low + 0.1))) for low in (0.95, 0.85))
        if around < 1.2 * below:
            return 0.0
    return float(np.mean(level >= FULL_SCALE))


def clipping_warnings(share: float) -> list[str]:
    """Return the warning of a recording with this share of clipped samples; none if they are few."""
    return [f"clipping: {share:.2%} of the samples are at full scale"] if share > _MANY else []
