"""What a repository must contain for a preset: models, their configs, the axes that a preset fixes. Light to import."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import heartvoice
from heartvoice import contracts, pbtxt
from heartvoice.contracts import ModelSpec
from heartvoice.errors import ExportError
from heartvoice.export.weights import Network
from heartvoice.presets import Preset

TEMPLATE = Path(heartvoice.__file__).parent / "model_repository"
"""The committed repository: a link in a checkout, package data in an installation."""
OPSET, IR_VERSION = 20, 10
"""Newest that the containers' onnxruntime and TensorRT both load."""
_CODE = ("contracts.py", "presets.py", "checkpoints.py", "noise.py", "engines.py", "models", "export")
_NOT_CODE = ("cli.py", "drift.py", "configs.py")
"""Modules of `export` that do not decide what is written."""


@dataclass(frozen=True)
class GraphModel:
    """A model whose graph an export writes."""

    spec: ModelSpec
    network: Network
    axes: dict[str, int]
    """Axes of the contract that the preset fixes."""

    @property
    def name(self) -> str:
        """The model's name."""
        return self.spec.name

    @property
    def batch(self) -> str:
        """Name of the axis before those of the contract; empty if the contract has its own."""
        return "batch" if self.spec.max_batch_size else ""


def graph_models(preset: Preset) -> tuple[GraphModel, ...]:
    """Every graph of a preset."""
    lm, codec = preset.lm, preset.codec
    step_axes = {
        "style": lm.muq_dim,
        "kv_head": lm.backbone.num_kv_heads,
        "head": lm.backbone.head_dim,
        "audio_id": lm.audio_vocab_size,
    }
    codec_axes = {"latent": codec.out_channels, "latent_half": codec.latent_hidden_dim, "condition": codec.dim}
    return (
        *(
            GraphModel(spec, "codec", _present(spec, codec_axes))
            for spec in (contracts.HEARTCODEC_CONDITION, contracts.HEARTCODEC_FLOW, contracts.HEARTCODEC_DECODER)
        ),
        GraphModel(contracts.heartmula_step(lm.backbone.num_layers), "lm", step_axes),
    )
