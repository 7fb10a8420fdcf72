"""Where the values of overlapping bands lie, for networks, graphs and tests alike. No torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heartvoice.config.roformer import RoformerConfig


@dataclass(frozen=True)
class OverlapTable:
    """Positions of every value of a frame among the values of all bands, one band after the other."""

    indices: NDArray[np.int64]
    """[most bands that share a value, features]; the number of band values stands for none."""
    counts: NDArray[np.int64]
    """Number of bands that hold each value, [features]."""

    @property
    def overlaps(self) -> bool:
        """True if any two bands share a value."""
        return len(self.indices) > 1


def overlap_table(sizes: RoformerConfig) -> OverlapTable:
    """Return the table of a network's bands."""
    total = sum(end - start for start, end in sizes.band_features)
    found: list[list[int]] = [[] for _ in range(sizes.n_features)]
    position = 0
    for start, end in sizes.band_features:
        for value in range(start, end):
            found[value].append(position)
            position += 1
    depth = max(len(positions) for positions in found)
    indices = np.array([positions + [total] * (depth - len(positions)) for positions in found], np.int64).T
    return OverlapTable(np.ascontiguousarray(indices), np.array([len(positions) for positions in found], np.int64))
