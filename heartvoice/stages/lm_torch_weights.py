"""Which of HeartMuLa's engines a server takes, and the weights of the one that reads no graph."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from heartvoice.checkpoints import Checkpoint, TensorSource, random_checkpoint
from heartvoice.errors import EngineError
from heartvoice.presets import HeartMuLaSizes
from heartvoice.repository import Repository

ENGINES = ("onnxruntime", "torch")
_RANDOM = re.compile(r"random seed=(\d+)")


def choose_engine(wanted: str) -> str:
    """One of `ENGINES`; `auto` is PyTorch where there are PyTorch and a GPU, else onnxruntime.

    Raises:
        EngineError: there is no such engine.
    """
    if wanted == "auto":
        return "torch" if _sees_gpu() else "onnxruntime"
    if wanted not in ENGINES:
        raise EngineError(f"engine: expected auto, {' or '.join(ENGINES)}, got {wanted!r}")
    return wanted


def _sees_gpu() -> bool:
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()


def open_lm_weights(repository: Repository, folder: str | None) -> TensorSource:
    """The weights that a repository's graph of HeartMuLa was made from.

    Args:
        repository: exported.
        folder: of the official checkpoint, which holds `config.json`; random weights are made anew and need none.

    Raises:
        EngineError: no folder is named, or its network has other sizes than the repository's.
        CheckpointError: the checkpoint is missing or damaged.
    """
    sizes, random = repository.preset.lm, _RANDOM.fullmatch(repository.origin("lm"))
    if random:
        return random_checkpoint(sizes, int(random[1]))
    if folder is None:
        raise EngineError(
            "weights: the engine torch reads the official checkpoint; name its folder (HeartMuLa-oss-3B) in this "
            "parameter, or set engine to onnxruntime"
        )
    source = Checkpoint.open(Path(folder))
    found = HeartMuLaSizes.from_config(source.config)
    if found != sizes:
        raise EngineError(f"weights: {folder} holds a network of {found}, the repository was exported for {sizes}")
    return source
