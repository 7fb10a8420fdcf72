"""Marks a finished mix and keeps its true peak below the limiter's ceiling."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heartvoice.audio.limiter import Limiter
from heartvoice.watermark.embedding import Embedder

Samples = NDArray[np.float32]


class Marker:
    """Marks a stream, [2, N] at 48 kHz, and limits it where the mark raises a peak above -1 dBTP.

    The output is as long as the input and does not depend on the lengths that are pushed.
    """

    def __init__(self, key: bytes, payload: int) -> None:
        """Take the secret key and the payload of 32 bits."""
        self._embedder, self._limiter = Embedder(key, payload), Limiter()

    @property
    def reduction_db(self) -> float:
        """Largest reduction by the limiter so far."""
        return self._limiter.reduction_db

    def push(self, audio: Samples) -> Samples:
        """Take float32 [2, N] and return the samples that are finished, [2, n]."""
        finished: Samples = self._limiter.push(self._embedder.push(audio)[None])[0]
        return finished

    def finish(self) -> Samples:
        """Return the rest."""
        last = self._limiter.push(self._embedder.finish()[None])[0]
        rest: Samples = np.concatenate([last, self._limiter.finish()[0]], axis=1)
        return rest


def mark(audio: Samples, key: bytes, payload: int) -> Samples:
    """Mark a whole mix, float32 [2, N] at 48 kHz."""
    marker = Marker(key, payload)
    marked: Samples = np.concatenate([marker.push(audio), marker.finish()], axis=1)
    return marked
