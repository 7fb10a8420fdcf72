"""Restores the stereo image of vocals around their converted mid channel.

Only the mid channel, (L + R) / 2, is converted. The side channel, (L - R) / 2, is rebuilt around the converted mid, in
bands of a short-time Fourier transform. Least squares splits the old side into a part that follows the old mid (a voice
that is panned off centre) and a residual (room and doubled voices): S = a M + R. The first part follows the new mid by
the same a. The residual still contains the old voice. It is kept, at the new mid's level, in proportion to the
coherence of new and old mid. The incoherent share is replaced by the new mid itself, delayed and phase-shifted band by
band, with the energy of the residual. So a converter that returns its input changes nothing, and a converter to
another voice leaves none of the old voice in the side.

Sources: Griffin and Lim, 1984 (overlap-add); Breebaart, van de Par, Kohlrausch and Schuijers, "Parametric coding of
stereo audio", 2005 (prediction and decorrelation).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heartvoice import keyed_random
from heartvoice.audio.dsp import frames, hann
from heartvoice.contracts.constants import STEM_RATE_HZ

Samples = NDArray[np.float32]
Values = NDArray[np.float64]
Spectra = NDArray[np.complex128]

HOP = STEM_RATE_HZ // 100
N_FFT = 4 * HOP
N_BINS = N_FFT // 2 + 1
REACH = 2
"""Context frames on each side used for a frame's estimates."""
MAX_DELAY = 4
"""Longest delay of a decorrelated band in frames; 4 frames are 40 ms."""
DELAY = (3 + REACH) * HOP
"""Latency in samples: the rest of a frame and the context frames after it."""
_HISTORY = 2 * REACH + MAX_DELAY
_MAX_RATIO = 4.0
"""12 dB: limit of every ratio between levels."""
_FLOOR = 1e-4
"""Power ratio: a mid channel 40 dB below the side channel is not followed."""
_TINY = 1e-18
_NEIGHBOURS = 4
"""Bands on either side over which the stereo width is averaged."""
_CHANCE = 0.3
"""Squared coherence that unrelated signals reach by chance in so few frames and bins."""


def _band_edges() -> NDArray[np.int64]:
    """First bin of each band; its width is a sixth of its frequency, at least 4 bins (100 Hz)."""
    edges = [0]
    while edges[-1] < N_BINS:
        edges.append(edges[-1] + max(4, edges[-1] // 6))
    return np.array(edges[:-1] if N_BINS - edges[-2] >= 4 else edges[:-2])


_EDGES = _band_edges()
_WIDTHS = np.diff(np.append(_EDGES, N_BINS))


def mid_channel(stereo: Samples) -> Samples:
    """Return the mid channel, which is the converter's input: float32 [2, N] to [N]."""
    half: Samples = (stereo[0] + stereo[1]) * np.float32(0.5)
    return half


class StereoImage:
    """Streaming stereo image: old stereo and new mid in, new stereo out, `DELAY` samples late.

    Blocks are multiples of `HOP` samples.
    """

    def __init__(self) -> None:
        self._window = np.sqrt(hann(N_FFT))
        self._past = np.zeros((3, N_FFT - HOP))
        self._spectra: Spectra = np.zeros((3, _HISTORY, N_BINS), np.complex128)
        self._sum = np.zeros(N_FFT - HOP)
        self._delayed = np.zeros(DELAY, np.float32)
        delays = 1 + np.floor(keyed_random.uniform(0, "stereo image delay", 0, (len(_EDGES),)) * MAX_DELAY).astype(int)
        phases = keyed_random.uniform(0, "stereo image turn", 0, (len(_EDGES),)).astype(np.float64)
        self._delays = np.repeat(delays, _WIDTHS)
        self._phases = np.repeat(np.exp(2j * np.pi * phases), _WIDTHS)

    def push(self, old: Samples, new_mid: Samples) -> Samples:
        """Process old stereo [2, N] and new mid [N] into new stereo [2, N], delayed by `DELAY` samples."""
        old_mid = mid_channel(old)
        side = old[0].astype(np.float64) - old_mid
        delayed = np.concatenate([self._delayed, new_mid])
        self._delayed = delayed[len(new_mid) :]
        mid = delayed[: len(new_mid)].astype(np.float64)
        new_side = self._side(np.stack([old_mid, side, new_mid]))
        new: Samples = np.stack([mid + new_side, mid - new_side]).astype(np.float32)
        return new

    def _side(self, signals: Values) -> Values:
        """New side [N] of old mid, old side and new mid, [3, N]; skips all work while the old side is zero."""
        n_hops = signals.shape[1] // HOP
        known = np.concatenate([self._past, signals], axis=1)
        self._past = known[:, signals.shape[1] :]
        if not (known[1].any() or self._spectra[1].any() or self._sum.any()):
            self._spectra[:] = 0.0  # the old side's spectra are zero already
            return np.zeros(signals.shape[1])
        from scipy import fft  # at first use: it takes 0.1 s to import

        new_spectra = fft.rfft(frames(known, N_FFT, HOP) * self._window, axis=-1)
        spectra = np.concatenate([self._spectra, new_spectra], axis=1)
        self._spectra = spectra[:, n_hops:]
        pieces = fft.irfft(_new_side(spectra, self._delays, self._phases), N_FFT, axis=-1) * (self._window / 2.0)
        total = np.concatenate([self._sum, np.zeros(signals.shape[1])])
        for index, piece in enumerate(pieces):
            total[index * HOP : index * HOP + N_FFT] += piece
        self._sum = total[signals.shape[1] :]
        return total[: signals.shape[1]]


def _new_side(spectra: Spectra, delays: NDArray[np.int64], phases: Spectra) -> Spectra:
    """Compute the new side's spectra [T, bin] from old mid, old side and new mid, [3, `_HISTORY` + T, bin].

    The first frame of the result is number `MAX_DELAY + REACH`.
    """
    old, side, new = spectra[:, MAX_DELAY:]
    old_power, side_power, new_power, side_old, new_old_re, new_old_im = _sum_context(spectra[:, MAX_DELAY:])
    floor = _FLOOR * side_power + _TINY
    a = np.clip(side_old / (old_power + _TINY), -_MAX_RATIO, _MAX_RATIO)
    residual_power = np.maximum(side_power - a * (2.0 * side_old - a * old_power), 0.0)
    coherence = (np.hypot(new_old_re, new_old_im) + floor) ** 2 / ((old_power + floor) * (new_power + floor))
    keep = np.clip((coherence - _CHANCE) / (1.0 - _CHANCE), 0.0, 1.0)
    level = np.clip(np.sqrt((new_power + floor) / (old_power + floor)), 1.0 / _MAX_RATIO, _MAX_RATIO)
    width = np.minimum(np.sqrt(_sum_neighbours(residual_power) / _sum_neighbours(old_power + floor)), _MAX_RATIO)
    decorrelated = np.sqrt(1.0 - keep**2) * width

    here = slice(REACH, len(new) - REACH)
    a, kept, decorrelated = (np.repeat(bands, _WIDTHS, axis=1) for bands in (a, keep * level, decorrelated))
    rows = np.arange(MAX_DELAY + REACH, spectra.shape[1] - REACH)[:, None] - delays
    rotated = spectra[2][rows, np.arange(N_BINS)] * phases
    result: Spectra = a * new[here] + kept * (side[here] - a * old[here]) + decorrelated * rotated
    return result


def _sum_neighbours(bands: Values) -> Values:
    """Sum over bands within `_NEIGHBOURS`, [T, band]: new harmonics may lie between old ones."""
    padded = np.pad(bands, ((0, 0), (_NEIGHBOURS, _NEIGHBOURS)))
    sums: Values = np.lib.stride_tricks.sliding_window_view(padded, 2 * _NEIGHBOURS + 1, axis=1).sum(axis=-1)
    return sums


def _sum_context(spectra: Spectra) -> Values:
    """Sum powers and cross products over each band and the context frames, [3, T + 2 * REACH, bin] to [6, T, band].

    The rows are the powers of old mid, side and new mid, Re side conj(old), Re new conj(old) and Im new conj(old).
    """
    re, im = np.ascontiguousarray(spectra.real), np.ascontiguousarray(spectra.imag)
    products = np.empty((6, *spectra.shape[1:]))
    products[:3] = re * re + im * im
    products[3:5] = re[1:] * re[0] + im[1:] * im[0]
    products[5] = im[2] * re[0] - re[2] * im[0]
    bands = np.add.reduceat(products, _EDGES, axis=2)
    n_frames = bands.shape[1] - 2 * REACH
    sums = bands[:, :n_frames].copy()
    for later in range(1, 2 * REACH + 1):
        sums += bands[:, later : later + n_frames]
    return sums
