"""Shared signal processing in numpy: resampling, STFT and mel filter banks."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]


def resample(audio: Samples, from_hz: int, to_hz: int) -> Samples:
    """Resample float32 [N] or [C, N] with soxr VHQ; equal rates return the input array."""
    if from_hz == to_hz:
        return audio
    import soxr

    resampled: Samples = soxr.resample(audio.T, from_hz, to_hz, "VHQ").T
    return np.ascontiguousarray(resampled, dtype=np.float32)


def hann(length: int) -> NDArray[np.float64]:
    """Return a periodic Hann window, float64 [length]."""
    window: NDArray[np.float64] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
    return window


def frames(audio: NDArray[np.floating[Any]], length: int, hop: int) -> NDArray[np.floating[Any]]:
    """Return a view of all full frames, [..., T, length] of [..., N], T = 1 + (N - length) // hop."""
    windows = np.lib.stride_tricks.sliding_window_view(audio, length, axis=-1)
    view: NDArray[np.floating[Any]] = windows[..., ::hop, :]
    return view


def stft(
    audio: Samples,
    n_fft: int,
    hop: int,
    *,
    window: NDArray[np.float64] | None = None,
    pad: int = 0,
    pad_mode: Literal["reflect", "constant"] = "reflect",
) -> NDArray[np.complex128]:
    """Compute the unnormalised STFT of [..., N] in float64: [..., T, n_fft // 2 + 1].

    Args:
        audio: float32.
        n_fft: samples per frame.
        hop: samples between the starts of neighbouring frames.
        window: [n_fft]; default periodic Hann.
        pad: samples added at both ends.
        pad_mode: content of the added samples.
    """
    if pad:
        audio = np.pad(audio, [(0, 0)] * (audio.ndim - 1) + [(pad, pad)], mode=pad_mode)
    shape = hann(n_fft) if window is None else window
    spectrum: NDArray[np.complex128] = np.fft.rfft(frames(audio.astype(np.float64), n_fft, hop) * shape, axis=-1)
    return spectrum


def hz_to_mel(hz: NDArray[np.float64], scale: Literal["htk", "slaney"]) -> NDArray[np.float64]:
    """Convert Hz to mel; Slaney's scale is linear below 1 kHz."""
    if scale == "htk":
        mel: NDArray[np.float64] = 2595.0 * np.log10(1.0 + hz / 700.0)
        return mel
    linear, log_step = hz * 3.0 / 200.0, np.log(6.4) / 27.0
    return np.where(hz >= 1000.0, 15.0 + np.log(np.maximum(hz, 1e-10) / 1000.0) / log_step, linear)


def mel_to_hz(mel: NDArray[np.float64], scale: Literal["htk", "slaney"]) -> NDArray[np.float64]:
    """Convert mel to Hz, the inverse of `hz_to_mel`."""
    if scale == "htk":
        return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
    log_step = np.log(6.4) / 27.0
    return np.where(mel >= 15.0, 1000.0 * np.exp(log_step * (mel - 15.0)), mel * 200.0 / 3.0)


def mel_filter_bank(
    sample_rate_hz: int,
    n_fft: int,
    n_mels: int,
    low_hz: float,
    high_hz: float,
    *,
    scale: Literal["htk", "slaney"],
    area_norm: bool = True,
) -> NDArray[np.float64]:
    """Design triangular filters [n_mels, n_fft // 2 + 1]; `area_norm` gives each unit area in Hz (Slaney)."""
    ends = hz_to_mel(np.array([low_hz, high_hz]), scale)
    corners = mel_to_hz(np.linspace(ends[0], ends[1], n_mels + 2), scale)
    bins = np.linspace(0.0, sample_rate_hz / 2, n_fft // 2 + 1)
    rise = (bins - corners[:-2, None]) / np.diff(corners)[:-1, None]
    fall = (corners[2:, None] - bins) / np.diff(corners)[1:, None]
    weights: NDArray[np.float64] = np.maximum(0.0, np.minimum(rise, fall))
    if area_norm:
        weights *= 2.0 / (corners[2:] - corners[:-2])[:, None]
    return weights


KALDI_FLOOR = float(np.finfo(np.float32).eps)
"""Lower limit of a Kaldi filter bank's band energy, before the logarithm."""


def kaldi_fbank(
    audio: Samples,
    sample_rate_hz: int,
    n_bands: int,
    *,
    low_hz: float = 20.0,
    frame_s: float = 0.025,
    hop_s: float = 0.01,
) -> Samples:
    """Compute Kaldi's default log filter bank energies, without dither.

    Args:
        audio: float32 [N] in [-1, 1], at least one frame; it is not scaled to 16-bit integers.
        sample_rate_hz: sample rate of the audio.
        n_bands: number of triangular filters, equally spaced in mel from `low_hz` to half the rate.
        low_hz: lower end of the first triangle.
        frame_s: length of a frame in seconds.
        hop_s: time between frames in seconds; only full frames are used.

    Returns:
        float32 [1 + (N - frame) // hop, n_bands].

    Source: seed_vc spec, section 8.
    """
    length, hop = round(frame_s * sample_rate_hz), round(hop_s * sample_rate_hz)
    n_fft = 1 << (length - 1).bit_length()
    x = frames(audio, length, hop).astype(np.float64)
    x -= x.mean(axis=-1, keepdims=True)
    x = x - 0.97 * np.concatenate([x[:, :1], x[:, :-1]], axis=1)
    povey = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / (length - 1))) ** 0.85
    power = np.square(np.abs(np.fft.rfft(x * povey, n_fft, axis=-1)))
    energies = power @ _mel_triangles(sample_rate_hz, n_fft, n_bands, low_hz).T
    logarithms: Samples = np.log(np.maximum(energies, KALDI_FLOOR)).astype(np.float32)
    return logarithms


@lru_cache(maxsize=8)
def _mel_triangles(sample_rate_hz: int, n_fft: int, n_bands: int, low_hz: float) -> NDArray[np.float64]:
    """Kaldi's filters [n_bands, n_fft // 2 + 1]: linear in mel, where `mel_filter_bank`'s are linear in Hz."""
    ends = hz_to_mel(np.array([low_hz, sample_rate_hz / 2]), "htk")
    corners = np.linspace(ends[0], ends[1], n_bands + 2)
    bins = hz_to_mel(np.linspace(0.0, sample_rate_hz / 2, n_fft // 2 + 1), "htk")
    width = corners[1] - corners[0]
    rise, fall = (bins - corners[:-2, None]) / width, (corners[2:, None] - bins) / width
    triangles: NDArray[np.float64] = np.maximum(0.0, np.minimum(rise, fall))
    return triangles
