"""Measures of one or two recordings, in numpy: separation, pitch, mel spectra, loudness. Uses no network.

A measure that is undefined for its input (silence, too little singing) is None; the caller gives the reason.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heartvoice.audio.dsp import stft
from heartvoice.audio.limiter import ROW, TruePeak
from heartvoice.audio.loudness import Loudness
from heartvoice.config.svc import SVC_HOP
from heartvoice.contracts.constants import F0_RATE_HZ
from heartvoice.stages.f0 import VOICED_ABOVE_HZ
from heartvoice.stages.svc.mel import LOG_FLOOR, MEL_FFT, mel_filters

Samples = NDArray[np.float32]
Values = NDArray[np.float64]

SI_SDR_LIMIT_DB = 100.0
"""Limits of SI-SDR: at the upper one the error is rounding, at the lower one nothing of the truth is left."""
MIN_COMPARED_S = 0.5
"""Least duration voiced in both; correlation and percentiles of less are meaningless."""
WITHIN_CENTS = 50.0
"""Distance up to which a pitch counts as the right one."""
N_MELS = 128
MEL_RANGE_DB = 80.0
"""Range below the loudest of two recordings; softer values count as silence."""
_SILENT_DB = 20.0 * math.log10(LOG_FLOOR)
_BLOCK = 1 << 18
_MEL_FRAMES = 2000
"""Frames transformed at a time: 70 MB, for recordings of any length."""


# ---------------------------------------------------------------------------------------------------------- separation


def si_sdr_db(estimate: Samples, truth: Samples) -> float | None:
    """Compute the scale-invariant signal-to-distortion ratio.

    With a = <estimate, truth> / ||truth||^2 it is 10 log10(||a truth||^2 / ||estimate - a truth||^2). Both channels
    form one vector with one scale, so errors of the stereo image count. The mean is not removed.

    Args:
        estimate: float32 [C, N].
        truth: float32 [C, N].

    Returns:
        dB, within +-`SI_SDR_LIMIT_DB`; None if either is silent.

    Raises:
        ValueError: the shapes differ.

    Source: J. Le Roux, S. Wisdom, H. Erdogan, J. R. Hershey, "SDR - half-baked or well done?", 2019, equations 2 and 3.
    """
    if estimate.shape != truth.shape:
        raise ValueError(f"estimate: expected shape {list(truth.shape)}, got {list(estimate.shape)}")
    energy = _dot(truth, truth)
    if energy == 0.0 or _dot(estimate, estimate) == 0.0:
        return None
    scale = _dot(estimate, truth) / energy
    error = 0.0
    for start in range(0, truth.shape[1], _BLOCK):
        part = slice(start, start + _BLOCK)
        error += float(np.square(estimate[:, part] - scale * truth[:, part].astype(np.float64)).sum())
    target = scale**2 * energy
    least = 10.0 ** (-SI_SDR_LIMIT_DB / 10.0)
    ratio = max(target, least * error) / max(error, least * target)
    return 10.0 * math.log10(ratio)


def _dot(one: Samples, other: Samples) -> float:
    """Inner product of [C, N] in float64, in blocks."""
    starts = range(0, one.shape[1], _BLOCK)
    blocks = ((one[:, s : s + _BLOCK].astype(np.float64), other[:, s : s + _BLOCK]) for s in starts)
    return sum(float((a * b).sum()) for a, b in blocks)


# --------------------------------------------------------------------------------------------------------------- pitch


@dataclass(frozen=True)
class F0Comparison:
    """Comparison of two contours of one melody; the second may be transposed."""

    compared_s: float
    """Duration voiced in both; all values but `voicing_agreement` refer to these frames."""
    shift_semitones: float
    """Median of the second contour relative to the first."""
    correlation: float | None
    """Pearson's correlation of log F0; None if a contour is constant."""
    median_cents: float
    """Median of the absolute difference after removing the shift."""
    p90_cents: float
    voicing_agreement: float
    """Share of all frames that are voiced in both or in neither."""


def cents_between(before: NDArray[np.floating[Any]], after: NDArray[np.floating[Any]]) -> Values:
    """Return cents from one contour [T] to another [T]; NaN where either is unvoiced."""
    voiced = (before > VOICED_ABOVE_HZ) & (after > VOICED_ABOVE_HZ)
    ratio = np.divide(after, before, out=np.full(len(before), np.nan), where=voiced, dtype=np.float64)
    cents: Values = 1200.0 * np.log2(ratio)
    return cents


def compare_f0(before: NDArray[np.floating[Any]], after: NDArray[np.floating[Any]]) -> F0Comparison | None:
    """Compare contours in Hz, `F0_RATE_HZ` values a second, 0 = unvoiced, over the shorter length.

    Returns:
        None if less than `MIN_COMPARED_S` is voiced in both.
    """
    n = min(len(before), len(after))
    before, after = before[:n], after[:n]
    cents = cents_between(before, after)
    both = np.isfinite(cents)
    if both.sum() < MIN_COMPARED_S * F0_RATE_HZ:
        return None
    shift = float(np.median(cents[both]))
    off = np.abs(cents[both] - shift)
    return F0Comparison(
        compared_s=float(both.sum()) / F0_RATE_HZ,
        shift_semitones=shift / 100.0,
        correlation=_correlation(np.log2(before[both]), np.log2(after[both])),
        median_cents=float(np.median(off)),
        p90_cents=float(np.percentile(off, 90)),
        voicing_agreement=float(np.mean((before > VOICED_ABOVE_HZ) == (after > VOICED_ABOVE_HZ))),
    )


def pitch_kept(
    wanted: NDArray[np.float64], rendered: NDArray[np.float32], decoded: NDArray[np.float32]
) -> tuple[float | None, float | None]:
    """Compare contours of equal length.

    Args:
        wanted: the score's pitch, [T].
        rendered: tracked in the rendered voice; frames where it is not the score's (consonants, changes of notes, the
            tracker's errors) do not count.
        decoded: tracked in the decoded voice.

    Returns:
        Share of the frames that count in which the decoded voice is within 50 cents of the score, and the median
        distance in cents of its voiced ones; None if there are none.
    """
    with np.errstate(invalid="ignore"):
        counted = np.abs(cents_between(wanted, rendered)) <= WITHIN_CENTS
        off = np.abs(cents_between(wanted, decoded))[counted]
        kept = off <= WITHIN_CENTS
    voiced = off[np.isfinite(off)]
    return (float(kept.mean()) if len(off) else None, float(np.median(voiced)) if len(voiced) else None)


def _correlation(one: NDArray[np.floating[Any]], other: NDArray[np.floating[Any]]) -> float | None:
    a, b = (values - values.mean(dtype=np.float64) for values in (one, other))
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    still = np.finfo(np.float32).eps * len(a)  # a contour that varies by rounding only is constant
    return float(a @ b) / size if size > still else None


# --------------------------------------------------------------------------------------------------------- mel spectra


def log_mel_db(audio44: Samples) -> Samples:
    """Compute the converter's mel spectrum in dB, in blocks.

    Args:
        audio44: float32 [N], mono at 44.1 kHz.

    Returns:
        float32 [1 + N // 512, `N_MELS`], 0 to 22.05 kHz; frame t is centred on sample 512 t. Silence is -100 dB.
    """
    padded = np.pad(audio44, MEL_FFT // 2)
    n_frames = 1 + len(audio44) // SVC_HOP
    mel = np.empty((n_frames, N_MELS), np.float32)
    for start in range(0, n_frames, _MEL_FRAMES):
        end = min(start + _MEL_FRAMES, n_frames)
        magnitude = np.abs(stft(padded[start * SVC_HOP : (end - 1) * SVC_HOP + MEL_FFT], MEL_FFT, SVC_HOP))
        mel[start:end] = 20.0 * np.log10(np.maximum(magnitude @ mel_filters(N_MELS).T, LOG_FLOOR))
    return mel


def mel_distance_db(before: Samples, after: Samples) -> float | None:
    """Return the mean distance in dB of two mel spectra [T, band], over the shorter length.

    Levels more than `MEL_RANGE_DB` below the loudest of both are raised to that limit. Frames without a level above it
    in either spectrum are left out. The distance is None if no frame is left.
    """
    n = min(len(before), len(after))
    before, after = before[:n], after[:n]
    floor = max(float(before.max()) - MEL_RANGE_DB, float(after.max()) - MEL_RANGE_DB, _SILENT_DB)
    one, other = np.maximum(before, floor), np.maximum(after, floor)
    audible = (one > floor).any(axis=1) | (other > floor).any(axis=1)
    return float(np.abs(one - other)[audible].mean(dtype=np.float64)) if audible.any() else None


# ------------------------------------------------------------------------------------------------------------ loudness


def loudness_lufs(audio: Samples, sample_rate_hz: int) -> float | None:
    """Return the integrated loudness of float32 [C, N], one or two channels.

    It is None if no block of 400 ms passes the gates.

    Source: ITU-R BS.1770-5, annex 1.
    """
    meter = Loudness(len(audio), sample_rate_hz)
    for start in range(0, audio.shape[1] - meter.hop + 1, meter.hop):
        meter.push(audio[:, start : start + meter.hop])
    lufs = meter.programme_lufs()
    return lufs if math.isfinite(lufs) else None


def true_peak_dbtp(audio: Samples) -> float | None:
    """Return the true peak of float32 [C, N] in dB of full scale; None for silence.

    Source: ITU-R BS.1770-5, annex 2, eight times oversampled.
    """
    meter, peak = TruePeak(len(audio)), 0.0
    for start in range(0, audio.shape[1] + 2 * ROW, _BLOCK):  # interpolated peaks are up to 2 rows late
        block = audio[:, start : start + _BLOCK]
        missing = -block.shape[1] % ROW + (2 * ROW if start + _BLOCK >= audio.shape[1] else 0)
        peak = max(peak, float(meter.push(np.pad(block, ((0, 0), (0, missing))), peak).max()))
    return 20.0 * math.log10(peak) if peak > 0 else None
