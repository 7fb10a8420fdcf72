"""The separator's transform: STFT and inverse STFT of one segment.

Source: demucs 4.1.0, `spec`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from heartvoice.audio.dsp import frames, hann
from heartvoice.config.presets import SeparatorConfig
from heartvoice.errors import InvalidRequestError

Samples = NDArray[np.float32]
_FRAMES_AT_ONCE = 4
"""Frames of the STFT that cover a sample."""
_WINDOW_SQUARES = 1.5
"""Sum of the squares of all Hann windows over a sample at that overlap."""


@dataclass(frozen=True)
class SegmentTransform:
    """STFT and inverse STFT of one segment, as in htdemucs: Hann windows, hop a quarter, no Nyquist bin.

    There is one frame for each hop of the segment. The computation is in float32; its error is below 1e-6.
    """

    sizes: SeparatorConfig
    window: Samples = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Make the window."""
        if self.n_samples <= self.n_frames * self.hop - self.n_samples + self.padding:
            raise InvalidRequestError(
                f"segment: expected more than {self.padding + self.hop} samples, got {self.n_samples}"
            )
        object.__setattr__(self, "window", hann(self.sizes.nfft).astype(np.float32))

    @property
    def n_samples(self) -> int:
        """Samples of a segment."""
        return self.sizes.segment_samples

    @property
    def hop(self) -> int:
        """Samples between frames."""
        return self.sizes.nfft // _FRAMES_AT_ONCE

    @property
    def n_frames(self) -> int:
        """Frames of a segment."""
        return math.ceil(self.n_samples / self.hop)

    @property
    def padding(self) -> int:
        """Samples that are reflected before a segment."""
        return self.hop // 2 * 3

    def forward(self, mix: Samples) -> Samples:
        """Samples [2, L] to the spectrum [4, F, T]: left re, left im, right re, right im."""
        from scipy import fft

        n_fft = self.sizes.nfft
        after = self.padding + self.n_frames * self.hop - self.n_samples
        padded = np.pad(mix, ((0, 0), (self.padding, after)), mode="reflect")
        window = self.window / np.float32(math.sqrt(n_fft))
        transformed = fft.rfft(frames(padded, n_fft, self.hop) * window, axis=-1)[..., :-1]  # [2, T, F]
        spectrum = np.empty((2, 2, n_fft // 2, self.n_frames), np.float32)
        spectrum[:, 0], spectrum[:, 1] = transformed.real.swapaxes(1, 2), transformed.imag.swapaxes(1, 2)
        return spectrum.reshape(4, n_fft // 2, self.n_frames)

    def inverse(self, spectra: Samples) -> Samples:
        """Spectra [S, 4, F, T] to samples [S, 2, L]."""
        n_sources = len(spectra)
        channels = spectra.reshape(2 * n_sources, 2, *spectra.shape[2:])
        samples = np.stack([self._inverse_channel(channel) for channel in channels])
        return samples.reshape(n_sources, 2, self.n_samples)

    def _inverse_channel(self, channel: Samples) -> Samples:
        """Real and imaginary parts [2, F, T] to samples [L]; frames stay the last axis, so that nothing is copied."""
        from scipy import fft

        n_fft, hop, n_frames = self.sizes.nfft, self.hop, self.n_frames
        spectrum = np.zeros((n_fft // 2 + 1, n_frames), np.complex64)
        spectrum.real[:-1], spectrum.imag[:-1] = channel
        framed = fft.irfft(spectrum, axis=0, overwrite_x=True).reshape(_FRAMES_AT_ONCE, hop, n_frames)
        window = (self.window * np.float32(math.sqrt(n_fft) / _WINDOW_SQUARES)).reshape(_FRAMES_AT_ONCE, hop, 1)
        added = np.zeros((hop, n_frames + _FRAMES_AT_ONCE - 1), np.float32)
        for index in range(_FRAMES_AT_ONCE):
            added[:, index : index + n_frames] += framed[index] * window[index]
        joined: Samples = added.T.reshape(-1)[self.padding : self.padding + self.n_samples]
        return joined
