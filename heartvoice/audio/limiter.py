"""Streaming look-ahead limiter: the true peak, also between samples, stays below -1 dBTP.

The gain is exactly 1 where no peak exceeds the ceiling. Elsewhere the reduction in dB is held over the look-ahead,
released over about 100 ms and smoothed by a window as long as the look-ahead, so that it is complete when the peak
arrives. All processing uses a fixed grid of blocks, so the output does not depend on the lengths that were pushed.

Source: ITU-R BS.1770-5, annex 2 (true peak by oversampling).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from heartvoice.audio.sample_queue import SampleQueue
from heartvoice.contracts.constants import SAMPLE_RATE_HZ

Samples = NDArray[np.float32]
Values = NDArray[np.float64]

CEILING_DBTP = -1.0
MARGIN_DB = 0.1
"""Peaks above the ceiling are brought this far below it, because other meters interpolate slightly differently."""
OVERSAMPLING = 8
HALF_TAPS = 16
"""Samples on either side of the interpolated point."""
LOOKAHEAD = 240
"""Length of the attack in samples; 5 ms at 48 kHz."""
RELEASE_S = 0.1
BLOCK = 4800
ROW = 16
"""Samples whose neighbourhoods one row of a matrix product interpolates."""
_WINDOWS = ((16, 7.0), (10, 5.0))
"""Half length and Kaiser's beta of each family of interpolators."""
_DELAY = HALF_TAPS + LOOKAHEAD + HALF_TAPS
"""Latency in samples: interpolation, look-ahead, and the reach of one peak's interpolation, with constant gain."""


def _interpolator() -> Samples:
    """Matrix [points * ROW, ROW + 2 * HALF_TAPS - 1]: samples to the points between `ROW` pairs of neighbours.

    It holds two families of windowed sincs: a sharp one, and one that passes slightly more than the Nyquist frequency,
    as most meters do. On noise up to that frequency they differ by tenths of a dB; the limiter satisfies both.
    """
    at = np.arange(1, OVERSAMPLING) / OVERSAMPLING - np.arange(1 - HALF_TAPS, HALF_TAPS + 1)[:, None]
    kernels = []
    for half_taps, kaiser in _WINDOWS:
        inside = np.maximum(0.0, 1.0 - (at / half_taps) ** 2)
        taps = np.sinc(at) * np.i0(kaiser * np.sqrt(inside)) * (inside > 0)
        kernels.append(taps / taps.sum(axis=0))
    kernel = np.concatenate(kernels, axis=1)
    matrix = np.zeros((kernel.shape[1], ROW, ROW + 2 * HALF_TAPS - 1), np.float32)
    for index in range(ROW):
        matrix[:, index, index : index + 2 * HALF_TAPS] = kernel.T
    return matrix.reshape(-1, matrix.shape[2])


class TruePeak:
    """Oversampled peaks of a stream, `HALF_TAPS` samples late; blocks are multiples of `ROW` samples."""

    def __init__(self, n_channels: int = 2) -> None:
        self._matrix = _interpolator()
        self._bound = float(np.abs(self._matrix).sum(axis=1).max())
        self._past = np.zeros((n_channels, 2 * HALF_TAPS - 1), np.float32)
        self._between = np.float32(0.0)

    def push(self, block: Samples, threshold: float = 0.0) -> Samples:
        """Return peaks [N] of [C, N]: the maximum of each sample and all points up to both its neighbours.

        The first values belong to the last `HALF_TAPS` samples of the previous block. Where no point between samples
        can exceed `threshold`, only the samples are compared, which is faster.
        """
        n = block.shape[1]
        signal = np.concatenate([self._past, block], axis=1)
        self._past = signal[:, n:]
        stretches = np.lib.stride_tricks.sliding_window_view(signal, self._matrix.shape[1], axis=1)[:, ::ROW]
        needed = np.abs(stretches).max(axis=(0, 2)) * self._bound > threshold
        between = np.zeros((n // ROW, ROW), np.float32)  # after each sample
        if needed.any():
            columns = np.ascontiguousarray(stretches[:, needed].transpose(2, 0, 1)).reshape(self._matrix.shape[1], -1)
            points = self._matrix @ columns
            highest = np.abs(points, out=points).reshape(-1, ROW, len(block), int(needed.sum())).max(axis=0)
            between[needed] = highest.max(axis=1).T
        between = between.reshape(-1)
        own = np.abs(signal[:, HALF_TAPS - 1 : HALF_TAPS - 1 + n]).max(axis=0)
        before = np.concatenate([[self._between], between[:-1]])
        self._between = between[-1]
        peaks: Samples = np.maximum(np.maximum(own, between), before)
        return peaks


class Limiter:
    """Limits the sum of parts, [P, 2, N] at 48 kHz, with one gain for all parts."""

    def __init__(self, n_parts: int = 1) -> None:
        self._ceiling = 10.0 ** (CEILING_DBTP / 20.0)
        self._input = SampleQueue((n_parts, 2))
        self._delayed = np.zeros((n_parts, 2, _DELAY), np.float32)
        self._peaks, self._output_peaks = TruePeak(), TruePeak()
        self._over = np.zeros(LOOKAHEAD + 2 * HALF_TAPS)
        self._released = np.zeros(LOOKAHEAD)
        self._last = 0.0
        window = np.hanning(LOOKAHEAD + 3)[1:-1]
        self._window = window / window.sum()
        self._n_in, self._n_out, self._to_skip = 0, 0, _DELAY
        self._true_peak, self._reduction_db = 0.0, 0.0

    @property
    def reduction_db(self) -> float:
        """Largest reduction so far."""
        return self._reduction_db

    @property
    def true_peak_dbtp(self) -> float:
        """True peak of the output so far; -inf for silence."""
        return 20.0 * math.log10(self._true_peak) if self._true_peak > 0 else -math.inf

    def push(self, parts: Samples) -> Samples:
        """Process float32 [P, 2, N] and return the finished samples [P, 2, n], gain applied to every part."""
        self._n_in += parts.shape[-1]
        self._input.push(parts)
        return self._run()

    def finish(self) -> Samples:
        """Return the remaining samples, so that the output is as long as the input."""
        n_rest = self._n_in - self._n_out
        n_pad = -(len(self._input) + _DELAY) % BLOCK + _DELAY
        self._input.push(np.zeros((*self._delayed.shape[:2], n_pad), np.float32))
        rest: Samples = self._run()[..., :n_rest]
        return rest

    def _run(self) -> Samples:
        done = [np.zeros((*self._delayed.shape[:2], 0), np.float32)]
        while len(self._input) >= BLOCK:
            block = self._limit(self._input.take(BLOCK))
            skip = min(self._to_skip, BLOCK)
            self._to_skip -= skip
            done.append(block[..., skip:])
            self._n_out += BLOCK - skip
        return np.concatenate(done, axis=-1)

    def _limit(self, parts: Samples) -> Samples:
        """Process one block; the returned block is `_DELAY` samples older."""
        peaks = self._peaks.push(parts.sum(axis=0), self._ceiling)
        reduction = self._smooth(self._hold(peaks))
        signal = np.concatenate([self._delayed, parts], axis=-1)
        self._delayed = signal[..., BLOCK:]
        out: Samples = signal[..., :BLOCK]
        if reduction.any():
            self._reduction_db = max(self._reduction_db, float(reduction.max()))
            out = np.asarray(out * 10.0 ** (reduction / -20.0), np.float32)
        peaks = self._output_peaks.push(out.sum(axis=0), self._true_peak)
        self._true_peak = max(self._true_peak, float(peaks.max()))
        return out

    def _hold(self, peaks: Samples) -> Values:
        """Reduction in dB of each sample, held from the look-ahead before it to the kernel's end after it."""
        over = np.zeros(BLOCK)
        high = peaks > self._ceiling
        over[high] = 20.0 * np.log10(peaks[high] / self._ceiling) + MARGIN_DB
        known = np.concatenate([self._over, over])
        self._over = known[BLOCK:]
        return running_maximum(known, len(self._over) + 1) if known.any() else known[:BLOCK]

    def _smooth(self, held: Values) -> Values:
        """Apply the release, then the attack.

        The release lets the reduction plus 1 dB fall exponentially, so that the reduction itself reaches zero. In the
        logarithm this is a running maximum of straight lines.
        """
        if self._last == 0.0 and not held.any():
            released = np.zeros(BLOCK)
        else:
            slope = np.arange(1, BLOCK + 1) / (RELEASE_S * SAMPLE_RATE_HZ)
            lines = np.maximum.accumulate(np.concatenate([[self._last], np.log1p(held) + slope]))[1:]
            logarithm = np.maximum(lines - slope, 0.0)
            self._last = float(logarithm[-1])
            released = np.expm1(logarithm)
        known = np.concatenate([self._released, released])
        self._released = known[BLOCK:]
        return np.convolve(known, self._window, "valid") if known.any() else released


def limit(audio: Samples) -> Samples:
    """Limit a whole recording, float32 [2, N] at 48 kHz."""
    limiter = Limiter()
    limited: Samples = np.concatenate([limiter.push(audio[None]), limiter.finish()], axis=-1)[0]
    return limited


def running_maximum(values: Values, size: int) -> Values:
    """The maximum of each `size` neighbours of `values` [N], [N - size + 1].

    `scipy.ndimage` has it, too, and takes 0.4 s to import in each process of a server.
    """
    found, width = values, 1
    while width < size:  # each pass up to doubles the number of neighbours that are compared
        step = min(width, size - width)
        found = np.maximum(found[:-step], found[step:])
        width += step
    return found
