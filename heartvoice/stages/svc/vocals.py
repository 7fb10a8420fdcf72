"""Limits on the audio that the converter takes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heartvoice.config.svc import SVC_HOP
from heartvoice.contracts.constants import MAX_LEVEL, STEM_RATE_HZ
from heartvoice.contracts.field_checks import check_finite
from heartvoice.contracts.graphs import MAX_SVC_FRAMES
from heartvoice.errors import InvalidRequestError

Floats = NDArray[np.float32]

MIN_VOICE_SAMPLES = STEM_RATE_HZ // 10
"""A shorter reference has too few frames for the style encoder."""
MAX_VOCALS_SAMPLES = (MAX_SVC_FRAMES + 1) * SVC_HOP - 1
"""600 s, and the samples that resampling may have added."""


def check_voice(audio44: Floats) -> None:
    """Refuse a reference of the wrong shape, dtype, length or level, or with NaN or Inf."""
    _check("voice", audio44, MIN_VOICE_SAMPLES, MAX_VOCALS_SAMPLES)


def check_vocals(vocals44: Floats, *, least: int = 0, before: int = 0) -> None:
    """Refuse vocals of the wrong shape, dtype, length or level, or with NaN or Inf.

    Args:
        vocals44: mono at 44.1 kHz.
        least: fewest samples.
        before: samples of earlier requests, which count towards the limit.
    """
    _check("vocals", vocals44, least, MAX_VOCALS_SAMPLES - before)


def _check(name: str, audio: Floats, least: int, most: int) -> None:
    if audio.ndim != 1 or audio.dtype != np.float32:
        raise InvalidRequestError(f"{name}: expected float32 [sample], got {audio.dtype} {list(audio.shape)}")
    if not least <= len(audio) <= most:
        raise InvalidRequestError(f"{name}: expected {least} to {most} samples at 44.1 kHz, got {len(audio)}")
    check_finite(name, audio, most=MAX_LEVEL)
