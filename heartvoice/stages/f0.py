"""F0 as a stage: the pitch of a voice, from either of two engines, on one grid.

The contour is 100 values a second in Hz, 0 = unvoiced; value j belongs to sample 160 j at 16 kHz.

* swift-f0 gives a pitch of 47 to 2094 Hz and a confidence every 16 ms, frame k around sample 256 k.
* RMVPE gives the salience of 360 pitches every 10 ms, 32 to 2005 Hz, from log-mel frames.

Both hear a soft recording at an ordinary level. Statistics are over the values that are `heard`: a contour of hum in
pauses is as good a contour as that of the voice.

Source: seed_vc spec, sections 4 and 5; the wheel of swift-f0 0.3.0 for its threshold, frame centres and windows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heartvoice.audio import dsp
from heartvoice.audio.levels import SILENCE_DBFS, at_ordinary_level, heard, loudness_levels, voice_level
from heartvoice.config.presets import AnyF0, RmvpeConfig, SwiftF0Config
from heartvoice.contracts.constants import F0_RATE_HZ, SPEECH_RATE_HZ
from heartvoice.contracts.models import F0_NETWORK
from heartvoice.errors import EngineError, InvalidRequestError
from heartvoice.runtime.networks import Networks, run_finite

Samples = NDArray[np.float32]
Contour = NDArray[np.float32]

F0_HOP = SPEECH_RATE_HZ // F0_RATE_HZ
"""Samples at 16 kHz between two values of a contour."""
VOICED_ABOVE_HZ = 1.0

SWIFT_F0_THRESHOLD = 0.5
"""Least confidence of a voiced frame: the value to which the confidence is calibrated."""
SWIFT_F0_SILENCE_DB = -45.0
"""Frames with a swing below this, relative to the voice's level, are unvoiced: the network guesses in silence."""
SWIFT_F0_WINDOW, SWIFT_F0_PAST, SWIFT_F0_FUTURE = 1875, 11, 10
"""Frames of one call, and its context before and after. The context is the network's receptive field, so that windows
change nothing."""
STEP_CENTS = 200.0
"""Neighbouring frames further apart than this are a step between notes, not a slide. A fast vibrato makes 60."""

RMVPE_FFT = 1024
RMVPE_MEL_RANGE_HZ = (30.0, 8000.0)
RMVPE_LOG_FLOOR = 1e-5
RMVPE_MULTIPLE = 32
"""Frames are padded with 0.0 to a multiple of this. 0.0 is no silence but louder than most audio; the GRU reads it."""
RMVPE_THRESHOLD = 0.03
RMVPE_FIRST_CENTS, RMVPE_BIN_CENTS = 1997.3794084376191, 20.0
"""Of bin 0 over 10 Hz, and of each bin over the one below."""
RMVPE_REACH = 4
"""Bins on each side of the highest one that are averaged into a pitch."""
RMVPE_WHOLE_FRAMES = 3200
"""Longest input of one call, 32 s, which bounds memory. A longer input is cut (benchmarks/DIARY.md)."""
RMVPE_CONTEXT_FRAMES = 320
"""Context frames on each side of a piece of a longer input; its neighbours give their values."""


class F0Stage:
    """Tracks pitch with one network. Holds no state of any recording."""

    def __init__(
        self,
        networks: Networks,
        sizes: AnyF0,
        *,
        threshold: float | None = None,
        whole_frames: int = RMVPE_WHOLE_FRAMES,
        context_frames: int = RMVPE_CONTEXT_FRAMES,
    ) -> None:
        """Choose the engine and its limits.

        Args:
            networks: hold `f0_network`.
            sizes: of the engine that was exported.
            threshold: of a voiced frame: swift-f0's least confidence, or the salience that RMVPE must exceed. The
                default is the engine's own.
            whole_frames: RMVPE's longest call, in frames, a multiple of 32.
            context_frames: context on each side of a piece of a longer input, a multiple of 32.
        """
        if whole_frames % RMVPE_MULTIPLE or context_frames % RMVPE_MULTIPLE or whole_frames <= 2 * context_frames:
            raise ValueError(
                f"whole_frames, context_frames: expected multiples of {RMVPE_MULTIPLE} and room between the contexts, "
                f"got {whole_frames} and {context_frames}"
            )
        self._networks, self._sizes = networks, sizes
        default = SWIFT_F0_THRESHOLD if isinstance(sizes, SwiftF0Config) else RMVPE_THRESHOLD
        self._threshold = default if threshold is None else threshold
        self._whole, self._context = whole_frames, context_frames

    def track(self, audio: Samples, level_dbfs: float | None = None) -> Contour:
        """Track the pitch.

        Args:
            audio: float32 [N], mono at 16 kHz, N >= 1.
            level_dbfs: level of the voice (`levels.voice_level`), if the audio is a part of a recording.

        Returns:
            float32 [N // 160 + 1], Hz, 0 = unvoiced.

        Raises:
            InvalidRequestError: audio has the wrong shape or dtype, is empty, or is not finite.
            RequestCancelledError: the job was cancelled.
            EngineError: the network failed, or its sizes are not `sizes`.
        """
        if audio.ndim != 1 or audio.dtype != np.float32 or not audio.size:
            raise InvalidRequestError(
                f"audio: expected float32 [N], at least one sample, got {audio.dtype} {list(audio.shape)}"
            )
        if not np.isfinite(audio).all():
            raise InvalidRequestError("audio: expected finite samples, got NaN or Inf")
        level = voice_level(loudness_levels(audio)) if level_dbfs is None else level_dbfs
        n_values = len(audio) // F0_HOP + 1
        if level < SILENCE_DBFS:
            return np.zeros(n_values, np.float32)
        ordinary = at_ordinary_level(audio, level)
        if isinstance(self._sizes, SwiftF0Config):
            hz, confidence = self._swift_frames(ordinary, self._sizes.hop)
            silent = swings(audio, self._sizes.hop) < 10 ** ((level + SWIFT_F0_SILENCE_DB) / 20)
            confidence[silent[: len(confidence)]] = 0.0
            return onto_grid(hz, confidence >= self._threshold, self._sizes.hop / F0_HOP, n_values)
        return self._track_rmvpe(ordinary, self._sizes)

    # ---------------------------------------------------------------------------------------------------- swift-f0

    def _swift_frames(self, audio: Samples, hop: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Hz and confidence of each frame, window by window with context."""
        n_frames = max(1, len(audio) // hop)
        parts = []
        for start in range(0, n_frames, SWIFT_F0_WINDOW):
            end = min(start + SWIFT_F0_WINDOW, n_frames)
            first = max(0, start - SWIFT_F0_PAST)
            last = (end + SWIFT_F0_FUTURE) * hop if end < n_frames else len(audio)
            found = self._run(audio[None, first * hop : last], 2)
            parts.append(found[start - first : end - first])
        hz, confidence = np.concatenate(parts).T
        return hz, confidence

    # ------------------------------------------------------------------------------------------------------- RMVPE

    def _track_rmvpe(self, audio: Samples, sizes: RmvpeConfig) -> Contour:
        n_frames = len(audio) // F0_HOP + 1
        contour, reflected = np.empty(n_frames, np.float32), _reflected(audio)
        for start, end, first, last in pieces(n_frames, self._whole, self._context):
            samples = reflected[first * F0_HOP : (last - 1) * F0_HOP + RMVPE_FFT]
            features = _log_mel(samples, sizes.n_mels)
            padded = np.pad(features, ((0, 0), (0, -(last - first) % RMVPE_MULTIPLE)))
            salience = self._run(padded, sizes.n_bins)[start - first : end - first]
            contour[start:end] = decode_salience(salience, self._threshold)
        return contour

    def _run(self, features: Samples, n_bins: int) -> NDArray[np.float32]:
        """Run the network on features [F, T]; returns activations [T', D]."""
        out = run_finite(self._networks, F0_NETWORK.name, {"features": np.ascontiguousarray(features[None])})[
            "activations"
        ]
        if out.ndim != 3 or out.shape[2] != n_bins:
            raise EngineError(f"{F0_NETWORK.name}: expected activations [1, T, {n_bins}], got {list(out.shape)}")
        activations: NDArray[np.float32] = out[0].astype(np.float32, copy=False)
        return activations


# --------------------------------------------------------------------------------------------------- swift-f0's maths


def swings(audio: Samples, hop: int) -> NDArray[np.float32]:
    """Half the range of each full hop of [N], [N // hop]; of all samples if there is no full hop."""
    whole = len(audio) // hop * hop
    by_hop = audio[:whole].reshape(-1, hop) if whole else audio[None]
    half: NDArray[np.float32] = (by_hop.max(axis=1) - by_hop.min(axis=1)) / 2
    return half


def onto_grid(hz: NDArray[np.float32], voiced: NDArray[np.bool_], step: float, n_values: int) -> Contour:
    """Resample frames onto the contour's grid.

    Args:
        hz: [T], the pitch of each frame.
        voiced: [T].
        step: values of the contour between two frames.
        n_values: length of the contour. Values beyond the last frame repeat it.

    Returns:
        float32 [n_values]. Between two voiced frames the logarithm of the pitch is interpolated. Next to an unvoiced
        frame, or at a step between notes, the value is that of the nearer frame.
    """
    place = np.minimum(np.arange(n_values) / step, len(hz) - 1)
    left = np.floor(place).astype(np.intp)
    right = np.minimum(left + 1, len(hz) - 1)
    share = place - left
    cents = 1200 * np.log2(np.maximum(hz.astype(np.float64), VOICED_ABOVE_HZ))
    rise = cents[right] - cents[left]
    slides = voiced[left] & voiced[right] & (np.abs(rise) <= STEP_CENTS)
    nearest = np.where(share < 0.5, left, right)
    smooth = 2.0 ** ((cents[left] + share * rise) / 1200)
    return np.where(slides, smooth, np.where(voiced[nearest], hz[nearest], 0.0)).astype(np.float32)


# ------------------------------------------------------------------------------------------------------ RMVPE's maths


def pieces(n_frames: int, longest: int, context: int) -> Iterator[tuple[int, int, int, int]]:
    """Cut frames into pieces with context.

    Args:
        n_frames: of the whole.
        longest: frames of one call, context included.
        context: frames on each side, where there are any.

    Yields:
        start, end, first, last: frames [start, end) are taken from a call on [first, last). With `longest` and
        `context` multiples of 32, so is every `first`, and pooling has the same grid as in one call.
    """
    start = 0
    while start < n_frames:
        first = max(0, start - context)
        last = min(first + longest, n_frames)
        end = last if last == n_frames else last - context
        yield start, end, first, last
        start = end


@lru_cache(maxsize=2)
def _rmvpe_filters(n_mels: int) -> NDArray[np.float64]:
    return dsp.mel_filter_bank(SPEECH_RATE_HZ, RMVPE_FFT, n_mels, *RMVPE_MEL_RANGE_HZ, scale="htk")


def rmvpe_log_mel(audio: Samples, n_mels: int) -> NDArray[np.float32]:
    """Log-mel frames [n_mels, N // 160 + 1] of samples [N] at 16 kHz; frame t is centred on sample 160 t."""
    return _log_mel(_reflected(audio), n_mels)


def _reflected(audio: Samples) -> Samples:
    """The audio with half a frame of reflection at both ends."""
    return np.pad(audio, RMVPE_FFT // 2, mode="reflect")


def _log_mel(audio: Samples, n_mels: int) -> NDArray[np.float32]:
    """Log-mel of every full frame."""
    magnitude = np.abs(dsp.stft(audio, RMVPE_FFT, F0_HOP))  # [T, 513]
    mel = _rmvpe_filters(n_mels) @ magnitude.T
    logarithm: NDArray[np.float64] = np.log(np.maximum(mel, RMVPE_LOG_FLOOR))
    return logarithm.astype(np.float32)


def decode_salience(salience: NDArray[np.float32], threshold: float = RMVPE_THRESHOLD) -> NDArray[np.float64]:
    """Decode saliences into pitches.

    Args:
        salience: float32 [T, n_bins].
        threshold: frames whose highest salience does not exceed this are unvoiced.

    Returns:
        float64 [T], Hz, 0 = unvoiced: the mean of the highest bin and its neighbours in cents, weighted by salience.
    """
    n_bins = salience.shape[1]
    reach = np.arange(-RMVPE_REACH, RMVPE_REACH + 1)
    bins = salience.argmax(axis=1)[:, None] + reach  # [T, 9]
    inside = (bins >= 0) & (bins < n_bins)
    bins = np.clip(bins, 0, n_bins - 1)
    weights = np.where(inside, np.take_along_axis(salience, bins, axis=1), np.float32(0)).astype(np.float64)
    total = weights.sum(axis=1)
    voiced = salience.max(axis=1) > threshold
    cents = (weights * (RMVPE_FIRST_CENTS + RMVPE_BIN_CENTS * bins)).sum(axis=1)
    mean = np.divide(cents, total, out=np.zeros_like(cents), where=total > 0)
    return np.where(voiced, 10.0 * 2.0 ** (mean / 1200), 0.0)


# ------------------------------------------------------------------------------------------------------------ reports


def heard_contour(f0: Contour, audio: Samples) -> Contour:
    """A contour [n] for statistics: 0 also where the audio [N] at 16 kHz is far below its voice's level."""
    return np.where(heard(loudness_levels(audio)[: len(f0)]), f0, np.float32(0))


def median_hz(f0: NDArray[np.floating[Any]]) -> float:
    """Lower median of the voiced values (above 1 Hz) of a contour; 0 if none is voiced."""
    voiced = np.sort(f0[f0 > VOICED_ABOVE_HZ])
    return float(voiced[(len(voiced) - 1) // 2]) if len(voiced) else 0.0


def shift_semitones(before: NDArray[np.floating[Any]], after: NDArray[np.floating[Any]]) -> float | None:
    """Semitones between the median pitches of two contours; None if one has no voiced value."""
    low, high = median_hz(before), median_hz(after)
    return 12 * math.log2(high / low) if low and high else None
