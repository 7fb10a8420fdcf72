"""Random weights of the F0 networks; see `heartvoice.checkpoints.random_init`. No torch."""

from __future__ import annotations

import math

from heartvoice.checkpoints.random_init import Law, LawOf
from heartvoice.config.presets import RmvpeSizes

LOG_MEL_MEAN, LOG_MEL_VARIANCE = -5.0, 9.0
"""What the input's batch norm takes log-mel frames of music for."""


def rmvpe_law(sizes: RmvpeSizes) -> LawOf:
    """Scales for RMVPE: activations near 1 at every depth, saliences that move with the input between 0 and 1."""
    del sizes  # fan-ins are in the shapes

    def law(name: str, shape: tuple[int, ...]) -> Law:
        if name.endswith("num_batches_tracked"):
            return Law(0.0)
        if name.startswith("unet.encoder.bn.running"):
            return Law(0.1, mean=LOG_MEL_VARIANCE if name.endswith("var") else LOG_MEL_MEAN)
        if name.startswith("fc."):
            return _head_law(name, shape)
        if len(shape) == 1:
            return _norm_law(name)
        fan_in: float = math.prod(shape[1:])
        if ".conv1.0." in name:
            fan_in = shape[0] * 9 / 4  # of a transposed convolution's nine taps, a quarter meet in a value
        return Law(1 / math.sqrt(fan_in))

    return law


def _norm_law(name: str) -> Law:
    """Batch norm, and the biases of shortcuts and of the last convolution."""
    if name.endswith("running_var"):
        return Law(0.1, mean=1.0)
    if name.endswith(".weight"):
        # The second norm of a block scales what the block adds; 56 blocks follow one another.
        return Law(0.05, mean=0.4) if name.endswith("conv.4.weight") else Law(0.1, mean=1.0)
    return Law(0.1)


def _head_law(name: str, shape: tuple[int, ...]) -> Law:
    if name.endswith("1.bias"):
        return Law(0.5, mean=-4.0)  # most bins are silent
    if name == "fc.1.weight":
        return Law(5 / math.sqrt(shape[1]))
    return Law(0.1) if "bias" in name else Law(0.5 / math.sqrt(shape[1]))
