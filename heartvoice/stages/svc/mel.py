"""The converter's mel spectrum: the prompt's features and the vocoder's input.

Source: seed_vc spec, section 7.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from heartvoice.audio import dsp
from heartvoice.config.svc import SVC_HOP
from heartvoice.contracts.constants import STEM_RATE_HZ
from heartvoice.errors import InvalidRequestError

MEL_FFT = 2048
MEL_PAD = (MEL_FFT - SVC_HOP) // 2
"""Reflected samples at both ends, so that there is a frame for every full hop."""
MAGNITUDE_FLOOR, LOG_FLOOR = 1e-9, 1e-5
"""The constant that is added to the power, and the least mel magnitude."""


def n_mel_frames(n_samples: int) -> int:
    """Number of mel frames of samples at 44.1 kHz. A remainder of up to 511 samples has no frame."""
    return n_samples // SVC_HOP


@lru_cache(maxsize=4)
def mel_filters(n_mels: int) -> NDArray[np.float64]:
    """Mel filters [n_mels, 1025] up to half the rate."""
    return dsp.mel_filter_bank(STEM_RATE_HZ, MEL_FFT, n_mels, 0.0, STEM_RATE_HZ / 2, scale="slaney")


def log_mel(audio: NDArray[np.float32], n_mels: int = 128) -> NDArray[np.float32]:
    """Compute the natural logarithm of mel magnitudes.

    Args:
        audio: float32 [N], mono at 44.1 kHz, N >= 769.
        n_mels: bands.

    Returns:
        float32 [N // 512, n_mels], at least -11.5129, the value of silence.

    Raises:
        InvalidRequestError: there are too few samples to reflect.
    """
    if len(audio) <= MEL_PAD:
        raise InvalidRequestError(f"audio: expected at least {MEL_PAD + 1} samples at 44.1 kHz, got {len(audio)}")
    spectrum = dsp.stft(audio, MEL_FFT, SVC_HOP, pad=MEL_PAD)
    magnitude = np.sqrt(np.square(spectrum.real) + np.square(spectrum.imag) + MAGNITUDE_FLOOR)  # [T, 1025]
    logarithm: NDArray[np.float64] = np.log(np.maximum(magnitude @ mel_filters(n_mels).T, LOG_FLOOR))
    return logarithm.astype(np.float32)
