"""STFT, masks and inverse STFT of the RoFormer separators, for one chunk.

Source: roformer spec, section 1. Conventions are those of `torch.stft`: periodic Hann, centred, reflected ends.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heartvoice.audio.dsp import frames, hann
from heartvoice.config.roformer import RoformerConfig
from heartvoice.errors import InvalidRequestError

Samples = NDArray[np.float32]


class RoformerTransform:
    """Samples to the features of the network, and masks to samples; in float32."""

    def __init__(self, sizes: RoformerConfig) -> None:
        """Make the window."""
        self.sizes = sizes
        self.window: Samples = hann(sizes.stft_n_fft).astype(np.float32)

    def features(self, mix: Samples) -> Samples:
        """Samples [C, L] to features [T, bins * C * 2], T = 1 + L // hop.

        Raises:
            InvalidRequestError: L is at most half a frame, so there is nothing to reflect.
        """
        from scipy import fft

        n_fft, half = self.sizes.stft_n_fft, self.sizes.stft_n_fft // 2
        if mix.shape[-1] <= half:
            raise InvalidRequestError(f"mix: expected more than {half} samples, got {mix.shape[-1]}")
        padded = np.pad(mix, ((0, 0), (half, half)), mode="reflect")
        spectrum = fft.rfft(frames(padded, n_fft, self.sizes.stft_hop_length) * self.window, axis=-1)  # [C, T, F]
        ordered = np.ascontiguousarray(spectrum.transpose(1, 2, 0), dtype=np.complex64)
        return ordered.view(np.float32).reshape(len(ordered), -1)

    def separate(self, features: Samples, masks: Samples) -> Samples:
        """Features [T, V] and masks [stems, T, V] to samples [stems, C, hop * (T - 1)].

        A chunk whose length is no multiple of the hop loses its last samples.
        """
        channels = self.sizes.channels
        shape = (len(features), self.sizes.n_bins, channels)
        spectrum = np.ascontiguousarray(features).view(np.complex64).reshape(shape)
        stems = []
        for mask in masks:
            masked = spectrum * np.ascontiguousarray(mask).view(np.complex64).reshape(shape)
            stems.append(self._inverse(masked.transpose(2, 0, 1)))
        return np.stack(stems)

    def _inverse(self, spectrum: NDArray[np.complex64]) -> Samples:
        """Spectrum [C, T, F] to samples [C, hop * (T - 1)]."""
        from scipy import fft

        n_fft, hop = self.sizes.stft_n_fft, self.sizes.stft_hop_length
        waves = fft.irfft(spectrum, n_fft, axis=-1) * self.window
        n_frames = waves.shape[1]
        total = np.zeros((len(waves), hop * (n_frames - 1) + n_fft), np.float32)
        weight = np.zeros(total.shape[1], np.float32)
        squares = self.window**2
        for index in range(n_frames):
            span = slice(index * hop, index * hop + n_fft)
            total[:, span] += waves[:, index]
            weight[span] += squares
        kept = slice(n_fft // 2, n_fft // 2 + hop * (n_frames - 1))
        joined: Samples = total[:, kept] / weight[kept]
        return joined
