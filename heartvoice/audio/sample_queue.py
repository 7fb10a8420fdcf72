"""A first-in, first-out queue of samples; pushed and taken lengths are independent."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]


class SampleQueue:
    """Queue of float32 samples [*shape, N]; `len` is the number of samples in it."""

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        self._shape = shape
        self._chunks: deque[Samples] = deque()
        self._n = 0

    def __len__(self) -> int:
        return self._n

    def push(self, samples: Samples) -> None:
        """Append [*shape, N]. The queue keeps a view: do not change the array afterwards.

        Raises:
            ValueError: the leading axes are not the queue's.
        """
        if samples.shape[:-1] != self._shape:
            raise ValueError(f"samples: expected shape {[*self._shape, 'sample']}, got {list(samples.shape)}")
        if samples.shape[-1]:
            self._chunks.append(samples)
            self._n += samples.shape[-1]

    def take(self, n: int) -> Samples:
        """Remove and return the first `n` samples as a contiguous array.

        Raises:
            ValueError: the queue holds fewer, or `n` is negative.
        """
        if not 0 <= n <= self._n:
            raise ValueError(f"n: expected 0 to {self._n} queued samples, got {n}")
        taken, missing = [np.empty((*self._shape, 0), np.float32)], n
        while missing:
            first = self._chunks.popleft()
            if first.shape[-1] > missing:
                self._chunks.appendleft(first[..., missing:])
                first = first[..., :missing]
            taken.append(first)
            missing -= first.shape[-1]
        self._n -= n
        return np.concatenate(taken, axis=-1)
