"""Separation in one request, or window by window."""

from __future__ import annotations

from typing import Any

import numpy as np

from heartvoice.contracts.messages import StemsChunk
from heartvoice.stages.separation.request import Carry, SeparationRequest
from heartvoice.stages.separation.stage import SeparateStage

Samples = np.ndarray[Any, np.dtype[np.float32]]


def separate(stage: SeparateStage, audio: Samples, **request: Any) -> Samples:
    """Stems [S', 2, M] of one request; its carry is dropped."""
    chunks = [
        item.stems for item in stage.separate(SeparationRequest(audio, **request)) if isinstance(item, StemsChunk)
    ]
    return np.concatenate(chunks, axis=2)


def separate_in_windows(
    stage: SeparateStage, audio: Samples, segments_per_window: int, sources: tuple[str, ...] = ()
) -> Samples:
    """Stems [S', 2, N] of a recording that comes in the plan's requests."""
    carry, parts = None, []
    for span in stage.plan.spans(audio.shape[1], segments_per_window):
        request = SeparationRequest(audio[:, span.start : span.end], span.context, carry, sources, span.more)
        *pieces, last = stage.separate(request)
        carry = last.carry if isinstance(last, Carry) else None
        assert (carry is not None) == span.more
        parts += [piece.stems for piece in [*pieces, last] if isinstance(piece, StemsChunk)]
    return np.concatenate(parts, axis=2)
