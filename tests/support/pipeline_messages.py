"""Joins what a pipeline sends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from heartvoice.contracts.constants import MAX_RESPONSE_SAMPLES
from heartvoice.contracts.messages import AudioChunk, Message, Report


def joined(messages: Iterator[Message]) -> tuple[np.ndarray, dict[str, Any]]:
    """Return audio [2, N] and report; checks that no chunk is missing, empty or too long."""
    pieces, report, position = list[np.ndarray](), dict[str, Any](), 0
    for message in messages:
        if isinstance(message, AudioChunk):
            assert message.start == position
            assert 0 < message.audio.shape[1] <= MAX_RESPONSE_SAMPLES
            position += message.audio.shape[1]
            pieces.append(message.audio)
        elif isinstance(message, Report):
            report = dict(message.raw)
    return np.concatenate(pieces, axis=1), report
