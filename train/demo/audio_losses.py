"""How far decoded audio is from the rendered one, in time and in spectrum.

The world is deterministic, so samples can be compared: no discriminator is needed.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

WINDOWS = (2048, 512, 128)
"""Samples of each spectrum; hops are a quarter."""
PRE_EMPHASIS = 0.9
_LEVEL, _EMPHASISED_LEVEL = 0.04, 0.01
"""Mean magnitudes of songs as they are and pre-emphasised, so that both terms are about 1 for silence."""
_WEIGHTS = {"error": 3.0, "wave": 1.0, "emphasised": 1.0, "spectrum": 1.0, "log_spectrum": 0.3}
"""`error` is what SI-SDR measures; without it, the worst held-out crop became worse while the other terms fell."""
_SMALLEST_POWER = 1e-8
_FLOOR = 1e-3
"""Magnitudes of silence, 60 dB below a loud tone."""
_SOFT = 3e-3
"""Mean magnitude, 20 dB below that of songs: crops in which hardly anything sounds do not count more than others."""


def losses(decoded: Tensor, rendered: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Compare float32 [B, N] with [B, N]; returns the weighted sum, and each term by its name."""
    error = decoded - rendered
    emphasised = error[:, 1:] - PRE_EMPHASIS * error[:, :-1]
    spectral = [_spectral(decoded, rendered, window) for window in WINDOWS]
    terms = {
        "error": (error.square().mean(1) / (rendered.square().mean(1) + _SOFT**2)).sqrt().mean(),
        "wave": error.abs().mean() / _LEVEL,
        "emphasised": emphasised.abs().mean() / _EMPHASISED_LEVEL,
        "spectrum": torch.stack([convergence for convergence, _ in spectral]).mean(),
        "log_spectrum": torch.stack([distance for _, distance in spectral]).mean(),
    }
    total = torch.stack([weight * terms[name] for name, weight in _WEIGHTS.items()]).sum()
    return total, terms


def _spectral(decoded: Tensor, rendered: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """Spectral convergence, and the mean distance of log magnitudes."""
    one, other = _magnitudes(decoded, window), _magnitudes(rendered, window)
    convergence = ((one - other).square().mean() / (other.square().mean() + _SOFT**2)).sqrt()
    return convergence, (torch.log(one + _FLOOR) - torch.log(other + _FLOOR)).abs().mean()


def _magnitudes(audio: Tensor, window: int) -> Tensor:
    taper = _hann(window, audio.device)
    spectrum = torch.stft(audio, window, window // 4, window=taper, return_complex=True)
    power = torch.view_as_real(spectrum).square().sum(-1)
    return power.clamp(min=_SMALLEST_POWER).sqrt() / math.sqrt(window / 2)


@lru_cache(maxsize=8)
def _hann(window: int, device: torch.device) -> Tensor:
    return torch.hann_window(window, device=device)
