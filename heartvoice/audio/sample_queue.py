"""A queue of samples: arrays of any length go in, arrays of any other length come out."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]


class SampleQueue:
    """Float32 samples [*shape, N] in the order they came; `len` is how many wait."""

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        self._shape = shape
        self._waiting: deque[Samples] = deque()
        self._n = 0

    def __len__(self) -> int:
        return self._n

    def push(self, samples: Samples) -> None:
        """Append [*shape, N]; they must not change afterwards."""
        assert samples.shape[:-1] == self._shape
        if samples.shape[-1]:
            self._waiting.append(samples)
            self._n += samples.shape[-1]

    def take(self, n: int) -> Samples:
        """Remove and return the first `n`, contiguous."""
        assert 0 <= n <= self._n
        taken, missing = [np.empty((*self._shape, 0), np.float32)], n
        while missing:
            first = self._waiting.popleft()
            if first.shape[-1] > missing:
                self._waiting.appendleft(first[..., missing:])
                first = first[..., :missing]
            taken.append(first)
            missing -= first.shape[-1]
        self._n -= n
        return np.concatenate(taken, axis=-1)
