"""Content features: resampling to 16 kHz, log-mel windows of 30 s, and the stitched output of the encoder.

Source: seed_vc spec, sections 2 and 3. Its windowed sinc resamples for content and pitch only; all other code resamples
by `dsp.resample`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from heartvoice.audio import dsp
from heartvoice.contracts.constants import SPEECH_RATE_HZ, STEM_RATE_HZ
from heartvoice.contracts.graphs import CONTENT_ENCODER
from heartvoice.errors import EngineError, InvalidRequestError
from heartvoice.runtime.networks import Networks, run_finite

Samples = NDArray[np.float32]
Features = NDArray[np.float32]

SINC_ZEROS = 6
"""Zero crossings of the sinc on each side."""
SINC_ROLLOFF = 0.99
"""Cutoff as a share of the lower rate's half."""
_BLOCK = 4096
"""Output periods that are computed at once. Bounds memory."""

WHISPER_FFT, WHISPER_HOP = 400, 160
LOG_FLOOR, LOG_RANGE = 1e-10, 8.0
"""Least mel power, and the range in decades below the loudest value of the window."""
CONTENT_HOP = 320
"""Samples at 16 kHz per content frame."""
CONTENT_WINDOW = 30 * SPEECH_RATE_HZ
CONTENT_OVERLAP = 5 * SPEECH_RATE_HZ
"""Samples that a window shares with the one before it; their frames are dropped."""
MAX_BATCH = CONTENT_ENCODER.max_batch_size


@lru_cache(maxsize=2)
def sinc_taps(from_hz: int, to_hz: int) -> Samples:
    """Filter taps of every output phase, float32 [2 W + from, to], for rates without a common divisor."""
    base = min(from_hz, to_hz) * SINC_ROLLOFF
    half = math.ceil(SINC_ZEROS * from_hz / base)
    tap, phase = np.arange(-half, half + from_hz)[:, None], np.arange(to_hz)[None]
    t = np.clip((tap / from_hz - phase / to_hz) * base, -SINC_ZEROS, SINC_ZEROS)
    window = np.cos(np.pi * t / (2 * SINC_ZEROS)) ** 2
    taps: Samples = (np.sinc(t) * window * base / from_hz).astype(np.float32)
    return taps


def sinc_resample(audio: Samples, from_hz: int = STEM_RATE_HZ, to_hz: int = SPEECH_RATE_HZ) -> Samples:
    """Resample with a sinc filter under a squared-cosine window.

    Args:
        audio: float32 [N].
        from_hz: its rate.
        to_hz: the wanted rate.

    Returns:
        float32 [ceil(N * to / from)].
    """
    divisor = math.gcd(from_hz, to_hz)
    from_step, to_step = from_hz // divisor, to_hz // divisor
    taps = sinc_taps(from_step, to_step)
    half = (len(taps) - from_step) // 2
    padded = np.pad(audio.astype(np.float32, copy=False), (half, half + from_step))
    periods = np.lib.stride_tricks.sliding_window_view(padded, len(taps))[::from_step]  # a view
    out = np.empty((len(periods), to_step), np.float32)
    for start in range(0, len(periods), _BLOCK):
        np.matmul(periods[start : start + _BLOCK], taps, out=out[start : start + _BLOCK])
    return out.reshape(-1)[: -(-len(audio) * to_step // from_step)]


# ------------------------------------------------------------------------------------------------------------- windows


@dataclass(frozen=True)
class ContentWindow:
    """One call of the encoder on samples [start, end); `kept` of its frames are used, from `first` on."""

    start: int
    end: int
    first: int
    kept: int


def content_windows(n_samples: int) -> list[ContentWindow]:
    """Cut samples at 16 kHz into the encoder's windows.

    Every window after the first begins with the last 5 s of the one before. A window has samples // 320 + 1 frames, but
    a full one has only 1500: a recording whose last window is full has one frame less.

    Raises:
        InvalidRequestError: the recording is empty.
    """
    if n_samples < 1:
        raise InvalidRequestError(f"audio: expected at least one sample at 16 kHz, got {n_samples}")
    windows, start = [], 0
    while True:
        end = min(start + CONTENT_WINDOW, n_samples)
        first = CONTENT_OVERLAP // CONTENT_HOP if start else 0
        frames = min(CONTENT_WINDOW // CONTENT_HOP, (end - start) // CONTENT_HOP + 1)
        windows.append(ContentWindow(start, end, first, frames - first))
        if end == n_samples:
            return windows
        start = end - CONTENT_OVERLAP


@lru_cache(maxsize=2)
def _filters(n_bands: int) -> NDArray[np.float64]:
    return dsp.mel_filter_bank(SPEECH_RATE_HZ, WHISPER_FFT, n_bands, 0.0, SPEECH_RATE_HZ / 2, scale="slaney")


def whisper_log_mel(audio: Samples, n_bands: int = 80) -> Features:
    """Log-mel frames of one window.

    Args:
        audio: float32 [N] at 16 kHz, N at most 480000; it is padded with silence to 30 s.
        n_bands: mel bands.

    Returns:
        float32 [n_bands, 3000]. The floor lies 8 decades below the loudest value of the window, so that a loud moment
        changes the whole window.

    Raises:
        InvalidRequestError: the audio is longer than a window.
    """
    if len(audio) > CONTENT_WINDOW:
        raise InvalidRequestError(f"audio: expected at most {CONTENT_WINDOW} samples, got {len(audio)}")
    padded = np.pad(audio, (0, CONTENT_WINDOW - len(audio)))
    spectrum = dsp.stft(padded, WHISPER_FFT, WHISPER_HOP, pad=WHISPER_FFT // 2)[:-1]  # [3000, 201]
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    decades = np.log10(np.maximum(_filters(n_bands) @ power.T, LOG_FLOOR))
    features: Features = ((np.maximum(decades, decades.max() - LOG_RANGE) + 4) / 4).astype(np.float32)
    return features


def stitch(outputs: Sequence[Features], windows: Sequence[ContentWindow]) -> Features:
    """Join the content [1500, D] of each window to the content [S, D] of the recording."""
    pairs = zip(outputs, windows, strict=True)
    return np.concatenate([output[window.first : window.first + window.kept] for output, window in pairs])


def content_features(
    networks: Networks,
    audio: Samples,
    n_bands: int = 80,
    *,
    batch: int = MAX_BATCH,
) -> Features:
    """Compute the content of a recording.

    Args:
        networks: hold `content_encoder`.
        audio: float32 [N], mono at 16 kHz, N >= 1, of any length.
        n_bands: the encoder's mel bands.
        batch: windows of one call. The result does not depend on it.

    Returns:
        float32 [S, D], S as in `content_windows`.

    Raises:
        InvalidRequestError: the recording is empty.
        RequestCancelledError: the job was cancelled.
        EngineError: the network failed or returned another shape.
    """
    windows, outputs = content_windows(len(audio)), []
    frames = CONTENT_WINDOW // CONTENT_HOP
    for start in range(0, len(windows), batch):
        called = windows[start : start + batch]
        log_mel = np.stack([whisper_log_mel(audio[window.start : window.end], n_bands) for window in called])
        found = run_finite(networks, CONTENT_ENCODER.name, {"log_mel": log_mel})["content"]
        if found.ndim != 3 or found.shape[:2] != (len(called), frames):
            raise EngineError(
                f"{CONTENT_ENCODER.name}: expected content [{len(called)}, {frames}, D], got {list(found.shape)}"
            )
        outputs += list(found.astype(np.float32, copy=False))
    return stitch(outputs, windows)
