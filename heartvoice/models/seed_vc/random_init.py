"""Random weights of the converter's networks; see `heartvoice.checkpoints.random_init`. No torch."""

from __future__ import annotations

import math

from heartvoice.checkpoints.random_init import InitFn, InitSpec
from heartvoice.config.svc import DitConfig, RegulatorConfig, WhisperConfig
from heartvoice.models.seed_vc.build import AnyPart

MEL_MEAN, MEL_DEVIATION = -5.0, 2.0
"""Approximate statistics of log-mel frames of singing, the target of the velocities."""


def part_init(sizes: AnyPart) -> InitFn:
    """Initial scales of a converter network: activations near 1, outputs that depend on every input."""
    match sizes:
        case WhisperConfig():
            return _whisper_init
        case RegulatorConfig():
            return _regulator_init
        case DitConfig():
            return _dit_init


def _whisper_init(name: str, shape: tuple[int, ...]) -> InitSpec:
    if "layer_norm" in name:
        return InitSpec(0.1, mean=1.0) if name.endswith(".weight") else InitSpec(0.1)
    if name.endswith(".bias"):
        return InitSpec(0.1)
    if "embed_positions" in name:
        return InitSpec(0.3)
    gain = 2.0 if ".conv" in name else 1.0  # GELU reduces the scale
    return InitSpec(gain / math.sqrt(math.prod(shape[1:])))


def _regulator_init(name: str, shape: tuple[int, ...]) -> InitSpec:
    if name in ("f0_embedding.weight", "f0_mask"):
        return InitSpec(1.0)
    if len(shape) == 1:
        return InitSpec(0.1) if name.endswith(".bias") else InitSpec(0.1, mean=1.0)  # one-axis weights belong to norms
    return InitSpec(1 / math.sqrt(math.prod(shape[1:])))


def _dit_init(name: str, shape: tuple[int, ...]) -> InitSpec:
    if name.endswith("t_embedder.freqs"):
        # radians per thousandth: neighbouring steps have similar embeddings, the two ends do not
        return InitSpec(0.004, mean=0.008)
    if name.endswith("norm.weight"):
        return InitSpec(0.1, mean=1.0)
    if name.endswith("project_layer.bias"):
        return InitSpec(0.6)  # scales of either sign; the network adds no 1 to them
    if name.endswith("final_mlp.2.bias"):
        return InitSpec(MEL_DEVIATION / 2, mean=MEL_MEAN)
    if name.endswith(".bias"):
        return InitSpec(0.1)
    gain = {
        "final_mlp.2.weight": 2 * MEL_DEVIATION,
        "t_embedder.mlp.0.weight": math.sqrt(2),
        "project_layer.weight": 0.3,  # keeps the velocity from depending on time alone
    }
    return InitSpec(next((value for end, value in gain.items() if name.endswith(end)), 1.0) / math.sqrt(shape[1]))
