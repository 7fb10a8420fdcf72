"""Turns audio into what a detector compares with a pattern: whitened changes of level from tile to tile."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heartvoice.audio.dsp import resample
from heartvoice.contracts.constants import SAMPLE_RATE_HZ
from heartvoice.watermark.layout import HOP, N_BANDS, PERIOD_FRAMES, TILE_FRAMES, WINDOW, band_bins

Samples = NDArray[np.float32]
Values = NDArray[np.float64]

MAX_SPEED = 1.05
"""Spectra reach as far as bands of audio that is played this much faster."""
_BLOCK_FRAMES = 512
_SILENCE = 1e-10
_LOCAL_FRAMES = 25
"""Frames over which the size of the changes is evened out."""
_CLIP = 2.0
"""Standard deviations at which a change is cut off."""
_DIAGONAL = 0.02
"""Added to the covariance of the bands, so that it can be inverted."""


def power_spectra(audio: Samples, sample_rate_hz: int) -> Samples:
    """Power of each frame and bin, summed over the channels: float32 [frame, bin].

    Args:
        audio: [C, N] or [N], at any rate.
        sample_rate_hz: of the audio.
    """
    n_bins = int(band_bins()[-1] * MAX_SPEED) + 2
    taper = np.hanning(WINDOW + 1)[:-1].astype(np.float32)
    spectra = np.zeros((0, n_bins), np.float32)
    for channel in np.atleast_2d(audio):
        wave = resample(
            np.nan_to_num(channel.astype(np.float32), posinf=0.0, neginf=0.0), sample_rate_hz, SAMPLE_RATE_HZ
        )
        if len(wave) < WINDOW:
            return spectra
        frames = np.lib.stride_tricks.sliding_window_view(wave, WINDOW)[::HOP]
        if not len(spectra):
            spectra = np.zeros((len(frames), n_bins), np.float32)
        for at in range(0, len(frames), _BLOCK_FRAMES):
            part = slice(at, at + _BLOCK_FRAMES)
            spectra[part] += np.square(np.abs(np.fft.rfft(frames[part] * taper)[:, :n_bins]))
    return spectra


def band_levels(spectra: Samples, speed: float) -> Values:
    """Natural logarithm of each band's power on the grid of the original: [frame, N_BANDS].

    Args:
        spectra: of the audio.
        speed: how much faster than the original it is played; it is higher by as much.
    """
    summed = np.concatenate([np.zeros((len(spectra), 1)), np.cumsum(spectra, axis=1, dtype=np.float64)], axis=1)
    edges = band_bins() * speed
    below = edges.astype(np.int64)
    up_to = summed[:, below] + (edges - below) * (summed[:, below + 1] - summed[:, below])
    levels: Values = np.log(np.maximum(np.diff(up_to, axis=1), _SILENCE))
    if speed == 1.0 or len(levels) < 2:
        return levels
    at = np.arange(int((len(levels) - 1) * speed)) / speed
    first = at.astype(np.int64)
    share = (at - first)[:, None]
    moved: Values = levels[first] * (1 - share) + levels[first + 1] * share
    return moved


def changes(levels: Values) -> Values:
    """Whitened change from each tile to the next, by the frame at which the first begins: [frame, N_BANDS].

    Changes are divided by their size nearby, cut off, and multiplied by the inverse of the bands' covariance: this is
    the matched filter for a pattern in noise whose bands rise and fall together, as those of music do.
    """
    if len(levels) < 2 * TILE_FRAMES + 1:
        return np.zeros((0, N_BANDS))
    summed = np.concatenate([np.zeros((1, N_BANDS)), np.cumsum(levels, axis=0)])
    tiles = (summed[TILE_FRAMES:] - summed[:-TILE_FRAMES]) / TILE_FRAMES
    change = tiles[:-TILE_FRAMES] - tiles[TILE_FRAMES:]
    sizes = np.sqrt(np.square(change).mean(axis=1))
    nearby = np.convolve(sizes, np.full(_LOCAL_FRAMES, 1 / _LOCAL_FRAMES))[_LOCAL_FRAMES // 2 :][: len(sizes)]
    change = np.minimum(np.maximum(_scaled(change / (nearby[:, None] + 0.05)), -_CLIP), _CLIP)
    covariance = change.T @ change / len(change) + _DIAGONAL * np.eye(N_BANDS)
    return _scaled(np.asarray(change @ np.linalg.inv(covariance), np.float64))


def fold(change: Values) -> Values:
    """Sum of all periods of the pattern: [PERIOD_FRAMES, N_BANDS]."""
    folded = np.zeros((PERIOD_FRAMES, N_BANDS))
    for at in range(0, len(change), PERIOD_FRAMES):
        part = change[at : at + PERIOD_FRAMES]
        folded[: len(part)] += part
    return folded


def _scaled(change: Values) -> Values:
    scaled: Values = change / (np.sqrt(np.square(change).mean(axis=0)) + 1e-9)
    return scaled
