"""A voice-like signal made by numpy, equal on all machines up to rounding."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RATE_HZ = 16_000
_FORMANTS = ((650.0, 90.0), (1150.0, 110.0), (2600.0, 170.0))
"""Centre and bandwidth of the formants in Hz."""


def synthetic_voice(n_samples: int, f0_hz: float = 140.0, level: float = 0.03) -> NDArray[np.float32]:
    """Harmonics of a gliding pitch under three formants, in syllables: float32 [N] at 16 kHz, RMS about `level`."""
    time = np.arange(n_samples) / RATE_HZ
    phase = 2 * np.pi * f0_hz * (time - 0.02 * np.cos(2 * np.pi * 0.7 * time))
    audio = np.zeros(n_samples)
    for harmonic in range(1, 25):
        hz = f0_hz * harmonic
        gain = sum(1 / (1 + ((hz - centre) / width) ** 2) for centre, width in _FORMANTS)
        audio += (gain + 0.02) * np.sin(harmonic * phase)
    audio *= 0.55 - 0.45 * np.cos(2 * np.pi * 3.1 * time)
    return (audio * (level / 0.75)).astype(np.float32)
