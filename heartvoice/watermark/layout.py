"""The secret pattern of a mark: which cell of time and frequency is raised or lowered, and for which bit.

Time goes by frames of `HOP` samples on a grid that begins at sample 0. `TILE_FRAMES` frames are a tile. Two tiles in a
row are a chip: in a band of frequencies one is raised and the other lowered, by the same share of the amplitude. So a
tone that lasts cancels itself out when chips are measured. A quarter of the chips is the same for every file of a key
and shows where the pattern begins. The others carry the coded payload.

Source: W. Bender et al., Techniques for data hiding, 1996 (patchwork).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from heartvoice.contracts.constants import SAMPLE_RATE_HZ

WINDOW = 2048
"""Samples of a frame, 43 ms."""
HOP = WINDOW // 2
TILE_FRAMES = 6
"""Frames of a tile, 128 ms."""
CHIP_FRAMES = 2 * TILE_FRAMES
PERIOD_CHIPS = 128
PERIOD_FRAMES = PERIOD_CHIPS * CHIP_FRAMES
"""Frames after which the pattern repeats, 32.8 s."""
N_BANDS = 32
LOWEST_HZ = 400.0
HIGHEST_HZ = 8000.0
PAYLOAD_BITS = 32
CODED_BITS = 4 * PAYLOAD_BITS
N_CHIPS = PERIOD_CHIPS * N_BANDS
N_SYNC_CHIPS = N_CHIPS // 4
SYNC = -1
"""In `Layout.bit`: the chip carries no bit."""


@dataclass(frozen=True)
class Layout:
    """The pattern of one key.

    Attributes:
        sign: float64 [PERIOD_CHIPS, N_BANDS], +1 or -1: the chip's first tile is raised, if its bit is 1.
        bit: int64 [PERIOD_CHIPS, N_BANDS]: the coded bit that the chip carries, or `SYNC`.
    """

    sign: NDArray[np.float64]
    bit: NDArray[np.int64]


@lru_cache(maxsize=64)
def layout_of(key: bytes) -> Layout:
    """Derive the pattern of a key. It depends on the key's bytes alone, by SHAKE-256."""
    stream = hashlib.shake_256(b"heartvoice watermark 1\0" + key).digest(9 * N_CHIPS)
    order = np.argsort(np.frombuffer(stream[: 8 * N_CHIPS], "<u8"), kind="stable")
    signs = np.where(np.frombuffer(stream[8 * N_CHIPS :], np.uint8) & 1, 1.0, -1.0)
    bits = np.full(N_CHIPS, SYNC, np.int64)
    carriers = order[N_SYNC_CHIPS:]
    bits[carriers] = np.arange(len(carriers)) % CODED_BITS
    return Layout(signs.reshape(PERIOD_CHIPS, N_BANDS), bits.reshape(PERIOD_CHIPS, N_BANDS))


def band_edges_hz() -> NDArray[np.float64]:
    """Edges of the bands, [N_BANDS + 1], equally wide on the mel scale."""
    low, high = (np.log1p(hz / 700.0) for hz in (LOWEST_HZ, HIGHEST_HZ))
    edges: NDArray[np.float64] = 700.0 * np.expm1(np.linspace(low, high, N_BANDS + 1))
    return edges


def band_bins() -> NDArray[np.int64]:
    """First bin of each band and the bin behind the last one, [N_BANDS + 1]."""
    bins: NDArray[np.int64] = np.rint(band_edges_hz() * WINDOW / SAMPLE_RATE_HZ).astype(np.int64)
    return bins


def window() -> NDArray[np.float64]:
    """Root of a periodic Hann window: analysis and synthesis with it at half overlap give the signal back."""
    taper: NDArray[np.float64] = np.sin(np.pi * np.arange(WINDOW) / WINDOW)
    return taper
