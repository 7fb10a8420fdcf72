"""Trained weights as the files of an official checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from heartvoice.audio.encode import replacing
from heartvoice.checkpoints.file_hash import sha256
from train.frame.errors import TrainingError

WEIGHTS, CONFIG = "model.safetensors", "config.json"


def write_checkpoint(folder: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> list[Path]:
    """Write a network as `model.safetensors`, float16 where it is floating-point, and `config.json`.

    The same tensors give the same bytes.

    Args:
        folder: made if it is not there.
        tensors: by the official checkpoint's names.
        config: JSON values.

    Returns:
        Both files.

    Raises:
        TrainingError: a value is not finite in float16.
    """
    return [write(folder / WEIGHTS, save(halved(tensors))), write(folder / CONFIG, json_text(config).encode())]


def halved(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors in the order of their names, float16 where they are floating-point.

    Raises:
        TrainingError: a value is not finite in float16.
    """
    return {name: _small(name, tensors[name]) for name in sorted(tensors)}


def write(path: Path, content: bytes) -> Path:
    """Replace a file as a whole, in a folder that is made if it is not there, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(content)
    return path


def json_text(value: object) -> str:
    """Return a value as JSON for a file that is kept in a repository."""
    return json.dumps(value, indent=1, sort_keys=True) + "\n"


def hashes(root: Path, files: list[Path]) -> dict[str, str]:
    """Return the SHA-256 of files by their path below `root`."""
    return {str(path.relative_to(root)): sha256(path) for path in sorted(files)}


def _small(name: str, tensor: Tensor) -> Tensor:
    tensor = tensor.detach().cpu().contiguous()
    if not tensor.is_floating_point():
        return tensor
    half = tensor.to(torch.float16)
    if not bool(half.isfinite().all()):
        raise TrainingError(f"{name}: a weight is too large for float16 or not finite")
    return half
