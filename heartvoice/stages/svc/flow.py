"""Euler's method for the converter's flow, for numpy arrays and for torch tensors.

Source: seed_vc spec, section 10. J. Ho and T. Salimans, "Classifier-Free Diffusion Guidance", 2022.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from heartvoice.contracts.graphs import SVC_FLOW
from heartvoice.runtime.engines import ConstantInputs
from heartvoice.runtime.networks import Networks, run_finite

Array = Any
"""A numpy array or a torch tensor; one call uses one kind."""
Velocity = Callable[[Array, Array, float, Array, Array], Array]
"""Maps rows of x [R, T, M], prompt_x [R, T, M], time, style [R, S] and cond [R, T, D] to velocities [R, T, M]. Apart
from x and time, every call gets the same objects, so that an engine may bind them once."""


def sample(
    noise: Array, prompt: Array, style: Array, cond: Array, *, steps: int, guidance: float, velocity: Velocity
) -> Array:
    """Integrate noise to a mel spectrum in equal steps from time 0 to 1.

    Args:
        noise: float32 [B, T, M], the state at time 0. Its first P frames are not used.
        prompt: float32 [B, P, M], the voice's mel, P < T.
        style: float32 [B, S].
        cond: float32 [B, T, D], of the prompt and then of the song.
        steps: evaluations of `velocity`, at least 1.
        guidance: 0 or less disables it. Above 0, each evaluation has B conditional rows, then B unconditional ones.
        velocity: see `Velocity`.

    Returns:
        float32 [B, T, M], zero on the first P frames. The state there stays zero at every step; the prompt acts
        through the velocity only.
    """
    n_rows, head = len(noise), slice(0, prompt.shape[1])
    prompt_x = noise * 0.0
    prompt_x[:, head] = prompt
    guided = guidance > 0
    rows = [*range(n_rows)] * (2 if guided else 1)
    # The inputs of an unconditional row are zero; the network's biases stay.
    fixed = [value[rows] for value in (prompt_x, style, cond)]
    if guided:
        for value in fixed:
            value[n_rows:] = 0.0
    state = noise * 1.0  # a copy: the caller keeps its noise
    state[:, head] = 0.0
    times = np.linspace(0.0, 1.0, steps + 1, dtype=np.float32)
    now = times[0]
    for before, after in pairwise(times):
        step = after - before
        v = velocity(state[rows] if guided else state, fixed[0], float(now), fixed[1], fixed[2])
        if guided:
            v = (1.0 + guidance) * v[:n_rows] - guidance * v[n_rows:]
        state = state + float(step) * v
        state[:, head] = 0.0
        now = np.float32(now + step)  # accumulated, as in the reference
    return state


def network_velocity(networks: Networks) -> Velocity:
    """The velocity by `svc_flow`; `networks` hold it."""
    constants = ConstantInputs()

    def velocity(x: Array, prompt_x: Array, t: float, style: Array, cond: Array) -> Array:
        inputs = {
            "x": x, "t": np.full((len(x), 1), t, np.float32),
            **constants.views({"prompt_x": prompt_x, "style": style, "cond": cond}),
        }  # fmt: skip
        return run_finite(networks, SVC_FLOW.name, inputs)["velocity"].astype(np.float32, copy=False)

    return velocity
