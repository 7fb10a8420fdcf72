"""Cuts finished audio into chunks that a response may carry."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from heartvoice.audio.mixer import MixPiece
from heartvoice.contracts.constants import MAX_RESPONSE_SAMPLES
from heartvoice.contracts.messages import Audio, AudioChunk, StemsChunk


def split_audio(audio: Audio, start: int) -> Iterator[AudioChunk]:
    """Cut audio, which begins at sample `start`, into chunks that a response may carry."""
    for at in range(0, audio.shape[1], MAX_RESPONSE_SAMPLES):
        yield AudioChunk(audio[:, at : at + MAX_RESPONSE_SAMPLES], start + at)


def split_into_chunks(piece: MixPiece, *, stems: bool) -> Iterator[AudioChunk | StemsChunk]:
    """Cut a piece of a mix into chunks that a response may carry.

    Args:
        piece: of the mix, of any length.
        stems: also yield the instrumental and the vocals, after the audio that they make up.
    """
    half = MAX_RESPONSE_SAMPLES // 2  # two stems of this length are as large as the audio
    for chunk in split_audio(piece.audio, piece.start):
        yield chunk
        if not stems:
            continue
        at = chunk.start - piece.start
        upto = at + chunk.length
        for first in range(at, upto, half):
            part = slice(first, min(first + half, upto))
            both = np.stack([piece.instrumental[:, part], piece.vocals[:, part]])
            yield StemsChunk(both, piece.start + first)
