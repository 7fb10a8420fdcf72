"""Random weights of the F0 networks; see `heartvoice.checkpoints.random_init`. No torch."""

from __future__ import annotations

import math

from heartvoice.checkpoints.random_init import InitFn, InitSpec
from heartvoice.config.presets import RmvpeConfig

LOG_MEL_MEAN, LOG_MEL_VARIANCE = -5.0, 9.0
"""Statistics that the input's batch norm assumes of log-mel frames of music."""


def rmvpe_init(sizes: RmvpeConfig) -> InitFn:
    """Initial scales of RMVPE: activations near 1; saliences in (0, 1) that vary with the input."""
    del sizes  # fan-ins follow from the shapes

    def init(name: str, shape: tuple[int, ...]) -> InitSpec:
        if name.endswith("num_batches_tracked"):
            return InitSpec(0.0)
        if name.startswith("unet.encoder.bn.running"):
            return InitSpec(0.1, mean=LOG_MEL_VARIANCE if name.endswith("var") else LOG_MEL_MEAN)
        if name.startswith("fc."):
            return _head_init(name, shape)
        if len(shape) == 1:
            return _norm_init(name)
        fan_in: float = math.prod(shape[1:])
        if ".conv1.0." in name:
            fan_in = shape[0] * 9 / 4  # a quarter of a transposed convolution's nine taps sum into a value
        return InitSpec(1 / math.sqrt(fan_in))

    return init


def _norm_init(name: str) -> InitSpec:
    """Scales of batch norm, and of the biases of shortcuts and of the last convolution."""
    if name.endswith("running_var"):
        return InitSpec(0.1, mean=1.0)
    if name.endswith(".weight"):
        # The second norm of a block scales the residual branch; 56 blocks follow one another.
        return InitSpec(0.05, mean=0.4) if name.endswith("conv.4.weight") else InitSpec(0.1, mean=1.0)
    return InitSpec(0.1)


def _head_init(name: str, shape: tuple[int, ...]) -> InitSpec:
    if name.endswith("1.bias"):
        return InitSpec(0.5, mean=-4.0)  # most bins are silent
    if name == "fc.1.weight":
        return InitSpec(5 / math.sqrt(shape[1]))
    return InitSpec(0.1) if "bias" in name else InitSpec(0.5 / math.sqrt(shape[1]))
