"""The converter's files, in the layout of the published ones, so that the same export reads them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from heartvoice.checkpoints.official import SEED_VC
from heartvoice.config.svc import DitConfig, RegulatorConfig
from train.frame.weights import halved, write

VARIANT = {
    "resblock": "1", "activation": "snakebeta", "snake_logscale": True, "use_tanh_at_final": False,
    "use_bias_at_final": False,
}  # fmt: skip
"""Of `bigvgan/config.json`, besides sizes."""


def listed(value: Any) -> Any:
    """Return a value as JSON has it: lists in place of tuples."""
    if isinstance(value, dict):
        return {name: listed(each) for name, each in value.items()}
    return [listed(each) for each in value] if isinstance(value, (list, tuple)) else value


def write_torch(path: Path, value: Mapping[str, Any]) -> Path:
    """Write tensors by name as a torch file, float16 where they are floating-point.

    Raises:
        TrainingError: a value is not finite in float16.
    """
    buffer = io.BytesIO()
    torch.save(_halved(value), buffer)
    return write(path, buffer.getvalue())


def write_seed_vc(
    folder: Path, sizes: tuple[RegulatorConfig, DitConfig], regulator: Mapping[str, Tensor], cfm: Mapping[str, Tensor]
) -> list[Path]:
    """Write regulator and flow: `seed-vc/demo.pth`, and its configuration."""
    of_regulator, dit = sizes
    params = {
        "length_regulator": {
            "channels": of_regulator.channels, "in_channels": of_regulator.in_channels,
            "n_f0_bins": of_regulator.n_f0_bins, "sampling_ratios": [1] * of_regulator.n_stages,
            "is_discrete": False, "f0_condition": True,
        },
        "DiT": {
            "hidden_dim": dit.hidden_dim, "num_heads": dit.num_heads, "depth": dit.depth,
            "in_channels": dit.in_channels, "content_dim": dit.content_dim,
        },
        "style_encoder": {"dim": dit.style_dim},
    }  # fmt: skip
    config = yaml.safe_dump({"model_params": params}, sort_keys=True)
    return [
        write_torch(folder / SEED_VC / "demo.pth", {"net": {"cfm": cfm, "length_regulator": regulator}}),
        write(folder / SEED_VC / "demo.yml", config.encode()),
    ]


def _halved(value: Mapping[str, Any]) -> dict[str, Any]:
    if any(isinstance(each, Mapping) for each in value.values()):
        return {name: _halved(each) for name, each in value.items()}
    return halved(value)
