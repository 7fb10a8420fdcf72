"""Pitch for the converter: the shift from a song to a voice, and contours as bins.

Source: seed_vc spec, section 5. Its quirks are kept where the weights were trained with them: a value above 1 Hz is
voiced, unvoiced values become 1e-5 Hz, the median of an even count is the lower of two, and pitches above 1103.1 Hz
have bin 0. One quirk is not kept: a reference without a voiced value makes no shift, where the original makes NaN.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from heartvoice.contracts.constants import F0_RATE_HZ
from heartvoice.stages.f0 import VOICED_ABOVE_HZ

Contour = NDArray[np.floating[Any]]
Rounding = Literal["exact", "semitone", "octave"]
"""Rounding of an automatic shift. "exact" is the original's. Only "octave" keeps the key of the accompaniment."""

UNVOICED_HZ = 1e-5
LOWEST_HZ, HIGHEST_HZ = 50.0, 1100.0
"""Centres of the first and last pitch bin."""
_ROUND_TO: dict[Rounding, int] = {"semitone": 1, "octave": 12}
_HELD_SEMITONES = 9.0
"""A held octave stays until the median is this far off: half an octave, and a margin against jumps in a song."""
_LEAST_NOTE = F0_RATE_HZ // 10
"""Values of a note, 0.1 s; shorter runs are slips of the tracker."""


def median_log(f0: Contour) -> float | None:
    """Lower median of the logarithms of the voiced values; None if no value is voiced."""
    voiced = np.sort(f0[f0 > VOICED_ABOVE_HZ].astype(np.float64))
    return float(np.log(voiced[(len(voiced) - 1) // 2] + UNVOICED_HZ)) if len(voiced) else None


def automatic_shift(
    source: Contour, reference: Contour, rounding: Rounding = "exact", *, held: float | None = None
) -> float:
    """Semitones from the median pitch of a song to that of a voice.

    Args:
        source: the song's contour, Hz, 0 = unvoiced.
        reference: the voice's.
        rounding: see `Rounding`.
        held: shift of the song so far. An octave is not left for a median that is only a little nearer to the next.

    Returns:
        The shift; 0.0 if either has no voiced value.
    """
    here, there = median_log(source), median_log(reference)
    if here is None or there is None:
        return 0.0
    semitones = 12 * (there - here) / np.log(2)
    if rounding == "octave" and held is not None and abs(semitones - held) <= _HELD_SEMITONES:
        return held
    step = _ROUND_TO.get(rounding)
    return float(semitones if step is None else step * np.round(semitones / step))


def shifted(source: Contour, semitones: float) -> NDArray[np.float64]:
    """Shift a contour.

    Args:
        source: Hz, 0 = unvoiced.
        semitones: the whole shift: the automatic one and `pitch_shift`.

    Returns:
        float64 of the same shape. Unvoiced values are 1e-5 Hz, as after the original's logarithm. Only the song's
        contour is shifted; the reference's goes to the regulator as it is.
    """
    raised = source.astype(np.float64) + UNVOICED_HZ
    return np.where(source > VOICED_ABOVE_HZ, raised * 2.0 ** (semitones / 12), raised)


def pitch_bins(f0: Contour, n_bins: int = 256) -> NDArray[np.int64]:
    """Quantise a contour to pitch bins.

    Args:
        f0: Hz, of any shape.
        n_bins: of the regulator's table.

    Returns:
        int64 of the same shape: 1 for unvoiced values and below about 51 Hz, n_bins - 1 at 1100 Hz, and 0 above the
        range. The 0 looks like a mistake, but the network was trained with it.
    """
    mel = 1127 * np.log(1 + f0.astype(np.float64) / 700)
    low, high = (1127 * np.log(1 + hz / 700) for hz in (LOWEST_HZ, HIGHEST_HZ))
    factor = (n_bins - 2) / (high - low)
    place = np.round(np.where(mel > 0, factor * mel - (factor * low - 1), mel))
    inside = np.where(place >= n_bins, 0, np.maximum(place, 1))
    return inside.astype(np.int64)


def keeps_key(semitones: float) -> bool:
    """True if a shift leaves the singing in the key of its accompaniment: whole octaves."""
    return semitones % 12 == 0


def range_warnings(source: Contour, semitones: float) -> list[str]:
    """Describe the notes that a shift moves beyond the pitches that the converter knows, for the report.

    Args:
        source: the song's contour before the shift, Hz, 0 = unvoiced.
        semitones: the whole shift.
    """
    moved = shifted(source, semitones)
    bins, voiced = pitch_bins(moved), source > VOICED_ABOVE_HZ
    warnings = []
    for side, beyond, limit, advice in (
        ("above", voiced & (bins == 0), HIGHEST_HZ, "lower pitch_shift by"),
        ("below", voiced & (bins == 1), LOWEST_HZ, "raise pitch_shift by"),
    ):
        notes = _in_notes(beyond)
        if notes.any():
            furthest = np.abs(np.log2(moved[notes] / limit)).max()
            warnings.append(
                f"pitch: {notes.sum() / F0_RATE_HZ:.1f} s of the singing are {side} {limit:g} Hz after the shift of "
                f"{semitones:+.1f} semitones, where the converter knows no pitch; {advice} {12 * np.ceil(furthest):.0f}"
            )
    return warnings


def _in_notes(marked: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keep the runs of marked values that are as long as a note."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], marked, [False]])))
    kept = np.zeros_like(marked)
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        kept[start:end] = end - start >= _LEAST_NOTE
    return kept
