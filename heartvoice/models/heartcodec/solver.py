"""Euler's method for the codec's flow, written for numpy arrays and torch tensors alike.

Source: heartcodec spec, section 5.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = Any
"""A numpy array or a torch tensor, the same kind throughout a call."""

SIGMA_MIN = 1e-6


def euler(
    noise: Array, context: Array, context_length: int, steps: int, velocity: Callable[[Array, float], Array]
) -> Array:
    """Carry noise to latents in equal steps from time 0 to 1.

    Args:
        noise: float32 [B, T, L], the state at time 0.
        context: float32 [B, T, L], known latents on the first `context_length` frames and zero elsewhere.
        context_length: frames that are held on their straight path from noise to `context` before each evaluation.
        steps: evaluations of `velocity`, at least 1.
        velocity: state [B, T, L] and time in [0, 1) to velocity [B, T, L]. It may raise to cancel.

    Returns:
        float32 [B, T, L], with `context` on its frames.
    """
    times = np.linspace(0.0, 1.0, steps + 1, dtype=np.float32)
    head = slice(0, context_length)
    state = noise * 1.0  # a copy: the caller keeps its noise
    now = times[0]
    for target in times[1:]:
        t, step = float(now), float(target - now)
        if context_length:
            state[:, head] = (1.0 - (1.0 - SIGMA_MIN) * t) * noise[:, head] + t * context[:, head]
        state = state + step * velocity(state, t)
        now = np.float32(now + (target - now))  # accumulated as the reference does, within one ulp of `target`
    if context_length:
        state[:, head] = context[:, head]
    return state


def guide(unconditional: Array, conditional: Array, guidance: float) -> Array:
    """Classifier-free guidance of velocities."""
    return unconditional + guidance * (conditional - unconditional)
