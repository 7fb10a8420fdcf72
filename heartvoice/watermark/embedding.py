"""Writes a mark into a stream of stereo audio.

Each band of each frame is multiplied by a gain near 1, up or down by the key's pattern. How far is bounded by a
masking curve: the change of a band stays a number of decibels below what the band and its neighbours mask, less under
tones than under noise; and the change of a tile as a whole stays `MIN_SNR_DB` below the tile. Both channels get the
same gains.

Source: J. Johnston, Transform coding of audio signals using perceptual noise criteria, 1988.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heartvoice.audio.sample_queue import SampleQueue
from heartvoice.watermark.error_correction import encode
from heartvoice.watermark.layout import (
    HOP,
    N_BANDS,
    PERIOD_CHIPS,
    SYNC,
    TILE_FRAMES,
    WINDOW,
    band_bins,
    layout_of,
    window,
)

Samples = NDArray[np.float32]
Values = NDArray[np.float64]

TILE = TILE_FRAMES * HOP
"""Samples that are processed at once."""
UNDER_NOISE_DB = 16.0
"""How far the change of a noisy band lies below what is there."""
UNDER_TONE_DB = 22.0
MIN_SNR_DB = 26.0
MAX_RATIO = 0.26
"""Largest change of an amplitude, 2 dB."""
FLAT, PEAKED = 0.5, 0.1
"""Spectral flatness (geometric by arithmetic mean) of noise, and of tones."""
_TINY = 1e-20
SPREAD_UP_DB, SPREAD_DOWN_DB = 8.0, 16.0
"""What a band masks of the next higher and the next lower one lies this far below itself."""


class Embedder:
    """Marks a stream, [2, N] at 48 kHz. The output does not depend on the lengths that are pushed."""

    def __init__(self, key: bytes, payload: int) -> None:
        """Take the secret key and the payload, `PAYLOAD_BITS` bits."""
        layout = layout_of(key)
        bits = np.where(layout.bit == SYNC, 1.0, encode(payload)[layout.bit])
        chips = layout.sign * bits
        self._pattern = np.stack([chips, -chips], axis=1).reshape(2 * PERIOD_CHIPS, N_BANDS)
        self._window, self._bins = window(), band_bins()
        self._input = SampleQueue((2,))
        self._past = np.zeros((2, HOP), np.float32)  # the first frame is centred on sample 0
        self._rest = np.zeros((2, HOP))
        self._tile, self._n_in, self._n_out, self._to_skip = 0, 0, 0, HOP

    def push(self, audio: Samples) -> Samples:
        """Take float32 [2, N] and return the samples that are marked, [2, n]."""
        self._n_in += audio.shape[1]
        self._input.push(audio)
        return self._run()

    def finish(self) -> Samples:
        """Return the rest, so that the output is as long as the input."""
        n_rest = self._n_in - self._n_out
        self._input.push(np.zeros((2, -len(self._input) % TILE + TILE), np.float32))
        rest: Samples = self._run()[:, :n_rest]
        return rest

    def _run(self) -> Samples:
        done = [np.zeros((2, 0), np.float32)]
        while len(self._input) >= TILE:
            block = self._mark(self._input.take(TILE))[:, self._to_skip :]
            self._to_skip = 0
            self._n_out += block.shape[1]
            done.append(block)
        return np.concatenate(done, axis=1)

    def _mark(self, block: Samples) -> Samples:
        """Process one tile; the returned block is `HOP` samples older."""
        signal = np.concatenate([self._past, block], axis=1)
        self._past = signal[:, TILE:]
        pattern = self._pattern[self._tile % len(self._pattern)]
        self._tile += 1
        if not signal.any():
            change = np.zeros((2, TILE + HOP))
        else:
            frames = np.lib.stride_tricks.sliding_window_view(signal, WINDOW, axis=1)[:, ::HOP]
            spectrum = np.fft.rfft(frames * self._window)  # [2, frame, bin]
            gain = np.zeros(spectrum.shape[-1])
            gain[self._bins[0] : self._bins[-1]] = np.repeat(pattern * self._ratios(spectrum), np.diff(self._bins))
            waves = np.fft.irfft(spectrum * gain) * self._window
            change = np.zeros((2, TILE + HOP))
            for index in range(TILE_FRAMES):
                change[:, index * HOP : index * HOP + WINDOW] += waves[:, index]
        change[:, :HOP] += self._rest
        self._rest = change[:, TILE:]
        marked: Samples = (signal[:, :TILE] + change[:, :TILE]).astype(np.float32)
        return marked

    def _ratios(self, spectrum: NDArray[np.complex128]) -> Values:
        """How far each band may be changed: [N_BANDS], of its amplitude."""
        power = np.square(spectrum.real).sum(axis=0) + np.square(spectrum.imag).sum(axis=0) + _TINY
        inside = power[:, self._bins[0] : self._bins[-1]].sum(axis=0)
        starts, n_bins = self._bins[:-1] - self._bins[0], np.diff(self._bins)
        energy = np.add.reduceat(inside, starts)
        logs = np.add.reduceat(np.log(power[:, self._bins[0] : self._bins[-1]]).sum(axis=0), starts)
        n_cells = TILE_FRAMES * n_bins
        flatness = np.exp(logs / n_cells) / (energy / n_cells)
        tonality = np.clip((FLAT - flatness) / (FLAT - PEAKED), 0.0, 1.0)
        masking = energy.copy()
        masking[1:] += energy[:-1] * 10 ** (-SPREAD_UP_DB / 10)
        masking[:-1] += energy[1:] * 10 ** (-SPREAD_DOWN_DB / 10)
        under_db = UNDER_NOISE_DB + (UNDER_TONE_DB - UNDER_NOISE_DB) * tonality
        ratios = np.minimum(np.sqrt(masking / energy * 10 ** (-under_db / 10)), MAX_RATIO)
        allowed = power.sum() * 10 ** (-MIN_SNR_DB / 10)
        bounded: Values = ratios * min(1.0, np.sqrt(allowed / np.dot(np.square(ratios), energy)))
        return bounded
