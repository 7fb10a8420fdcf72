"""The GPU and the weights of the engine over PyTorch."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path

from heartvoice.config.presets import HeartMuLaConfig
from heartvoice.errors import EngineError
from heartvoice.models.load import Checkpoint, TensorSource, random_checkpoint
from heartvoice.runtime.repository import Repository

VARIABLE = "HEARTVOICE_WEIGHTS"
_OFFICIAL = "HeartMuLa-oss-3B"
_RANDOM = re.compile(r"random seed=(\d+)")


def sees_gpu() -> bool:
    """True if PyTorch is installed and can use a GPU."""
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()


def open_lm_weights(repository: Repository, folder: str | None) -> TensorSource:
    """The weights that a repository's graph of HeartMuLa was made from.

    Args:
        repository: exported.
        folder: of the official checkpoint, with `config.json`. None looks below HEARTVOICE_WEIGHTS, where
            `heartvoice weights pull` writes. Random weights are generated again and need no folder.

    Raises:
        EngineError: no folder is known, or its network has other sizes than the repository's.
        CheckpointError: the checkpoint is missing or damaged.
    """
    sizes, random = repository.preset.lm, _RANDOM.fullmatch(repository.origin("lm"))
    if random:
        return random_checkpoint(sizes, int(random[1]))
    pulled = os.environ.get(VARIABLE)
    if folder is None and not pulled:
        raise EngineError(
            f"weights: the engine torch reads the official checkpoint; name its folder ({_OFFICIAL}) in this "
            f"parameter, or the one above it in {VARIABLE}, or choose an engine over a graph"
        )
    if folder is None:
        folder = f"{pulled}/{_OFFICIAL}"
    source = Checkpoint.open(Path(folder))
    found = HeartMuLaConfig.from_config(source.config)
    if found != sizes:
        raise EngineError(f"weights: {folder} holds a network of {found}, the repository was exported for {sizes}")
    return source
