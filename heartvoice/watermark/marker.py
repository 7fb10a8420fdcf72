"""Marks a finished mix and keeps its true peak below the limiter's ceiling."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heartvoice.audio.limiter import Limiter
from heartvoice.watermark.embedding import Embedder

Samples = NDArray[np.float32]


class Marker:
    """Marks a stream, [2, N] at 48 kHz. The output is as long as the input, whatever lengths are pushed."""

    def __init__(self, key: bytes, payload: int, *, limited: bool = True) -> None:
        """Begin a stream.

        Args:
            key: of the pattern, see `keys.pattern_keys`.
            payload: 32 bits.
            limited: limit the output where the mark raises a peak above -1 dBTP; for mixes that were limited before.
        """
        self._embedder, self._limiter = Embedder(key, payload), Limiter() if limited else None

    @property
    def reduction_db(self) -> float:
        """Largest reduction by the limiter so far."""
        return 0.0 if self._limiter is None else self._limiter.reduction_db

    def push(self, audio: Samples) -> Samples:
        """Take float32 [2, N] and return the samples that are finished, [2, n]."""
        marked = self._embedder.push(audio)
        return marked if self._limiter is None else self._limiter.push(marked[None])[0]

    def finish(self) -> Samples:
        """Return the rest."""
        last = self._embedder.finish()
        if self._limiter is None:
            return last
        rest: Samples = np.concatenate([self._limiter.push(last[None])[0], self._limiter.finish()[0]], axis=1)
        return rest


def mark(audio: Samples, key: bytes, payload: int) -> Samples:
    """Mark a whole mix, float32 [2, N] at 48 kHz."""
    marker = Marker(key, payload)
    marked: Samples = np.concatenate([marker.push(audio), marker.finish()], axis=1)
    return marked
