"""Random weights of the RoFormer separators; see `heartvoice.checkpoints.random_init`. No torch."""

from __future__ import annotations

import math

from heartvoice.checkpoints.random_init import InitFn, InitSpec
from heartvoice.config.roformer import RoformerConfig


def roformer_init(sizes: RoformerConfig) -> InitFn:
    """Initial scales: activations near 1, masks near 0.5 that vary with the input."""
    n_layers = 2 * sizes.depth

    def init(name: str, shape: tuple[int, ...]) -> InitSpec:
        if name.endswith(".gamma"):
            return InitSpec(0.1, mean=1.0)
        if name.endswith("rotary_embed.freqs"):
            return InitSpec(0.25, mean=0.5)  # read like any tensor, so any frequencies below 1 do
        if name.endswith(".bias"):
            return InitSpec(0.1)
        scale = 1 / math.sqrt(shape[-1])
        # Residual branches add up over the layers.
        return InitSpec(scale / math.sqrt(n_layers) if ".to_out." in name or ".net.4." in name else scale)

    return init
