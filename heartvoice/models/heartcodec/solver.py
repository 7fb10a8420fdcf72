"""Euler's method for the codec's flow, for numpy arrays and torch tensors.

Source: heartcodec spec, section 5.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = Any
"""A numpy array or a torch tensor; all arrays of a call are of the same kind."""

SIGMA_MIN = 1e-6


def euler(
    noise: Array, context: Array, context_length: int, steps: int, velocity: Callable[[Array, float], Array]
) -> Array:
    """Integrate from noise to latents in equal steps from time 0 to 1.

    Args:
        noise: float32 [B, T, L], the state at time 0.
        context: float32 [B, T, L], known latents on the first `context_length` frames and zero elsewhere.
        context_length: frames that are set to the straight path from noise to `context` before each evaluation.
        steps: evaluations of `velocity`, at least 1.
        velocity: maps state [B, T, L] and time in [0, 1) to velocity [B, T, L]. It may raise to cancel.

    Returns:
        float32 [B, T, L]; the first `context_length` frames are `context`.
    """
    times = np.linspace(0.0, 1.0, steps + 1, dtype=np.float32)
    head = slice(0, context_length)
    state = noise * 1.0  # a copy: the caller's noise stays unchanged
    now = times[0]
    for target in times[1:]:
        t, step = float(now), float(target - now)
        if context_length:
            state[:, head] = (1.0 - (1.0 - SIGMA_MIN) * t) * noise[:, head] + t * context[:, head]
        state = state + step * velocity(state, t)
        now = np.float32(now + (target - now))  # accumulated as in the reference, within one ulp of `target`
    if context_length:
        state[:, head] = context[:, head]
    return state


def guide(unconditional: Array, conditional: Array, guidance: float) -> Array:
    """Apply classifier-free guidance to velocities."""
    return unconditional + guidance * (conditional - unconditional)
