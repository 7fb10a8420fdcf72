"""Slots of 40 ms: what each adds to a part, with the fade into the next one."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from train.demo.layout import ATOM_SAMPLES, FRAME_SAMPLES

Samples = NDArray[np.float32]

FADE_SAMPLES = 1440
"""30 ms: from one slot into the next."""
SAMPLES = ATOM_SAMPLES + FADE_SAMPLES


def split(frame: Samples) -> Samples:
    """Split what a frame adds, [3840 + at most 1440], into its two slots, [2, SAMPLES]; `joined` undoes it."""
    padded = np.pad(frame, (0, FRAME_SAMPLES + FADE_SAMPLES - len(frame)))
    first, second = padded[:SAMPLES].copy(), padded[ATOM_SAMPLES:].copy()
    first[ATOM_SAMPLES:] *= 1 - _rise()
    second[:FADE_SAMPLES] *= _rise()
    return np.stack([first, second])


def joined(slots: Samples) -> Samples:
    """Add up slots, [n, SAMPLES] to [1920 n]; what would ring on is cut off."""
    n = len(slots)
    wave = np.zeros((n + 1, ATOM_SAMPLES), np.float32)
    wave[:n] += slots[:, :ATOM_SAMPLES]
    wave[1:, :FADE_SAMPLES] += slots[:, ATOM_SAMPLES:]
    return wave[:n].reshape(-1)


@lru_cache(maxsize=1)
def window() -> Samples:
    """Return the fades of a slot, [SAMPLES]; with the neighbours' they add up to 1."""
    rise = _rise()
    return np.concatenate([rise, np.ones(SAMPLES - 2 * FADE_SAMPLES), 1 - rise])


@lru_cache(maxsize=1)
def _rise() -> NDArray[np.float64]:
    return np.asarray(0.5 - 0.5 * np.cos(np.pi * (np.arange(FADE_SAMPLES) + 0.5) / FADE_SAMPLES))
