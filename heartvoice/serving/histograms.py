"""Histograms made of counters: Triton 2.51 has only counters and gauges."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class _Counters(Protocol):
    def change(self, name: str, value: float, **labels: str) -> None: ...


class Histogram:
    """Values not yet reported; a bucket counts the values up to its bound, as in Prometheus."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.clear()

    def clear(self) -> None:
        """Forget all values."""
        self.count, self.sum = 0, 0.0
        self.buckets = np.zeros(len(self.bounds) + 1, np.int64)

    def add(self, value: float) -> None:
        """Record a value."""
        self.count += 1
        self.sum += value
        self.buckets[np.searchsorted(self.bounds, value) :] += 1

    def report(self, counters: _Counters, name: str, *, zeros: bool = False) -> None:
        """Add the values to the counters `name_bucket`, `name_sum` and `name_count`, and forget them.

        Args:
            counters: where they are counted; each change is a message to the server.
            name: of the metric.
            zeros: also send what changes nothing, so that each counter is shown from the start.
        """
        for bound, count in zip((*self.bounds, "+Inf"), self.buckets, strict=True):
            if count or zeros:
                counters.change(f"{name}_bucket", int(count), le=str(bound))
        if self.count or zeros:
            counters.change(f"{name}_sum", self.sum)
            counters.change(f"{name}_count", self.count)
        self.clear()
