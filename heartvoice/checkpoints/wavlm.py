"""Reads the sizes of a published WavLM x-vector model, and makes random ones. No torch.

Source: speaker_encoders spec, section 3.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from heartvoice.checkpoints.random_init import InitFn, InitSpec
from heartvoice.config.presets import WavlmConfig
from heartvoice.errors import CheckpointError

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
_WANTED: Mapping[str, Any] = {
    "hidden_act": "gelu",
    "feat_extract_activation": "gelu",
    "use_weighted_layer_sum": True,
    "add_adapter": False,
}
"""Keys of `config.json` that have one supported value."""


def wavlm_sizes(folder: Path) -> WavlmConfig:
    """Read the sizes, and whether the wave is normalised, from the two published configurations.

    Raises:
        CheckpointError: a file is missing or damaged, or describes another network.
    """
    config, preprocessor = _parsed(folder / CONFIG), _parsed(folder / PREPROCESSOR)
    for name, wanted in _WANTED.items():
        if config.get(name, wanted) != wanted:
            raise CheckpointError(f"{folder / CONFIG}: {name}: expected {wanted}, got {config[name]}")
    normalise = preprocessor.get("do_normalize")
    if not isinstance(normalise, bool):
        raise CheckpointError(f"{folder / PREPROCESSOR}: do_normalize: expected true or false, got {normalise}")
    if preprocessor.get("sampling_rate", 16_000) != 16_000:
        raise CheckpointError(
            f"{folder / PREPROCESSOR}: sampling_rate: expected 16000, got {preprocessor['sampling_rate']}"
        )
    sizes = WavlmConfig.from_config({**config, "do_normalize": normalise, "engine": "wavlm"})
    heads, groups = sizes.num_attention_heads, sizes.num_conv_pos_embedding_groups
    if sizes.hidden_size % heads or sizes.hidden_size % groups:
        raise CheckpointError(
            f"{folder / CONFIG}: hidden_size: expected a multiple of {heads} and {groups}, got {sizes.hidden_size}"
        )
    return sizes


def _parsed(path: Path) -> Mapping[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a JSON object")
    return value


def wavlm_init(sizes: WavlmConfig) -> InitFn:
    """Initial scales: activations of deviation near 1."""
    gain = math.sqrt(sizes.hidden_size / sizes.num_conv_pos_embeddings)
    special = {
        "layer_weights": InitSpec(0.5),
        "gru_rel_pos_const": InitSpec(0.1, mean=1.0),
        "rel_attn_embed.weight": InitSpec(0.5),
        "weight.original0": InitSpec(0.1 * gain, mean=gain),
        "layer_norm.weight": InitSpec(0.1, mean=1.0),
    }

    def init(name: str, shape: tuple[int, ...]) -> InitSpec:
        for ending, spec in special.items():
            if name.endswith(ending):
                return spec
        if len(shape) == 1:
            return InitSpec(0.1)
        rectified = "conv_layers." in name or name.startswith("tdnn.")
        return InitSpec(math.sqrt((2 if rectified else 1) / math.prod(shape[1:])))

    return init
