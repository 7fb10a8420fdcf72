"""What a job yields while it is under way, and how finished audio is cut into responses."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heartvoice.audio.mixer import MixPiece
from heartvoice.contracts.constants import MAX_RESPONSE_SAMPLES

Codes = NDArray[np.int32]


@dataclass(frozen=True)
class AudioPiece:
    """Finished samples: float32 [2, N], the first of them at `start`."""

    audio: NDArray[np.float32]
    start: int


@dataclass(frozen=True)
class CodesPiece:
    """Code frames, int32 [8, T], the first of them at `start`."""

    codes: Codes
    start: int


@dataclass(frozen=True)
class StemsPiece:
    """Instrumental and vocals of finished samples: float32 [2, 2, N], the first of them at `start`."""

    stems: NDArray[np.float32]
    start: int


@dataclass(frozen=True)
class Progress:
    """How far a stage is, in frames, and the seconds since the job began."""

    stage: str
    done: int
    total: int
    seconds: float


@dataclass(frozen=True)
class Finished:
    """The job's report, once, at the end."""

    report: dict[str, Any]


Message = AudioPiece | StemsPiece | CodesPiece | Progress | Finished


def split_into_chunks(piece: MixPiece, *, stems: bool) -> Iterator[AudioPiece | StemsPiece]:
    """A stretch of a mix in pieces that a response may carry; with `stems`, those follow the audio they make up."""
    for at in range(0, piece.audio.shape[1], MAX_RESPONSE_SAMPLES):
        upto = min(at + MAX_RESPONSE_SAMPLES, piece.audio.shape[1])
        yield AudioPiece(piece.audio[:, at:upto], piece.start + at)
        if not stems:
            continue
        half = MAX_RESPONSE_SAMPLES // 2
        for first in range(at, upto, half):
            part = slice(first, min(first + half, upto))
            both = np.stack([piece.instrumental[:, part], piece.vocals[:, part]])
            yield StemsPiece(both, piece.start + first)


def drain(side_messages: queue.SimpleQueue[Message]) -> Iterator[Message]:
    """The messages that other threads have put there so far."""
    while not side_messages.empty():
        yield side_messages.get()
