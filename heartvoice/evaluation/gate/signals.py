"""Measures of a decoded song against its true sound, second by second and at the seams of its windows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heartvoice.contracts.constants import DECODER_LOOKAHEAD, FRAME_HOP, LATENTS_PER_FRAME, SAMPLE_RATE_HZ
from heartvoice.evaluation.measures import SI_SDR_LIMIT_DB, si_sdr_db
from heartvoice.models.heartcodec.windows import WindowPlan

Samples = NDArray[np.float32]

AUDIBLE_DB = 40.0
"""Seconds that are further below the loudest one than this do not count."""
SEAM = FRAME_HOP
"""Samples around a seam in which the error is looked at, 80 ms."""


def seams(n_frames: int, window: int) -> tuple[int, ...]:
    """Return the samples at which one codec window's audio ends and the next one's begins.

    Args:
        n_frames: code frames of the song.
        window: code frames of a window.
    """
    plan = WindowPlan(window)
    late = DECODER_LOOKAHEAD * FRAME_HOP // LATENTS_PER_FRAME
    return tuple(plan.ready_at(index) * FRAME_HOP - late for index in range(plan.n_windows(n_frames) - 1))


def worst_second_db(made: Samples, truth: Samples) -> float | None:
    """Return the lowest SI-SDR of the audible seconds of [2, N] against [2, N]; None if nothing is audible."""
    levels = [float(np.square(part, dtype=np.float64).mean()) for part in _parts(truth, SAMPLE_RATE_HZ)]
    least = max(levels, default=0.0) * 10 ** (-AUDIBLE_DB / 10)
    found = [
        -SI_SDR_LIMIT_DB if (ratio := si_sdr_db(one, other)) is None else ratio  # silence where there should be sound
        for one, other, level in zip(_parts(made, SAMPLE_RATE_HZ), _parts(truth, SAMPLE_RATE_HZ), levels, strict=True)
        if level > least
    ]
    return min(found) if found else None


def seam_db(made: Samples, truth: Samples, at: Sequence[int]) -> float | None:
    """Return how much larger the error is at the worst seam than elsewhere, in dB.

    The error is made - a truth with the scale a of SI-SDR. What lies `SI_SDR_LIMIT_DB` under the truth is no error.

    Args:
        made: float32 [2, N].
        truth: float32 [2, N].
        at: samples of the seams.

    Returns:
        0 where seams are like everything else; None without seams, or without sound.
    """
    energy = float(np.square(truth, dtype=np.float64).sum())
    if not at or energy == 0.0:
        return None
    scale = float((made.astype(np.float64) * truth).sum()) / energy
    error = np.square(made - scale * truth.astype(np.float64)).mean(axis=0)
    nothing = energy / truth.size * 10 ** (-SI_SDR_LIMIT_DB / 10)
    elsewhere = float(np.median([part.mean() for part in _parts(error[None], SEAM)])) + nothing
    worst = max(float(error[max(0, seam - SEAM // 2) : seam + SEAM // 2].mean()) for seam in at) + nothing
    return 10.0 * math.log10(worst / elsewhere)


def _parts(audio: NDArray[np.floating[Any]], length: int) -> Iterator[NDArray[np.floating[Any]]]:
    """Cut [C, N] into parts of a length; a shorter rest is part of the last one."""
    n_parts = max(1, audio.shape[1] // length)
    for index in range(n_parts):
        yield audio[:, index * length : None if index == n_parts - 1 else (index + 1) * length]
