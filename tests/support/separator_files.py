"""Separator checkpoints as they are published, with random weights at a reduced width."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from demucs.htdemucs import HTDemucs
from safetensors.torch import save_file

from heartvoice.config.presets import SeparatorConfig, htdemucs_of
from heartvoice.models.demucs import module_kwargs
from heartvoice.models.load import TensorSource, random_checkpoint

TINY = replace(htdemucs_of("tiny"), segment="1/2")
SMALLEST = replace(TINY, nfft=1024, depth=3, segment="1/5")
FT = ("f7e0c4bc", "d12395a8", "92cfc3b6", "04573f0d")
Package = dict[str, Any]


@cache
def source_of(sizes: SeparatorConfig, seed: int) -> TensorSource:
    return random_checkpoint(replace(sizes, n_models=1), seed)


def kwargs_of(sizes: SeparatorConfig = TINY, **kwargs: Any) -> dict[str, Any]:
    """Arguments of a published network, including training-only ones."""
    return module_kwargs(sizes) | {"t_dropout": 0.02, "dconv_init": 1e-3, "t_sparse_self_attn": False} | kwargs


def package_of(sizes: SeparatorConfig = TINY, seed: int = 0, **kwargs: Any) -> Package:
    """Make the content of a published pickle."""
    source = source_of(sizes, seed)
    state = {name.removeprefix("models.0."): torch.from_numpy(source.array(name)).half() for name in source.names}
    return {
        "klass": HTDemucs,
        "args": (),
        "kwargs": kwargs_of(sizes, **kwargs),
        "state": state,
        "training_args": {"seed": 42, "dset": {}},
    }


def write_th(folder: Path, signature: str, package: Any) -> Path:
    """Write a pickle with its checksum in the name, as published."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{signature}.th"
    torch.save(package, path)
    return path.rename(folder / f"{signature}-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}.th")


def write_safetensors(folder: Path, signature: str, package: Package, **metadata: str) -> Path:
    """Write safetensors as demucs 4.1.0 does: class and arguments are JSON in the metadata."""
    kwargs = dict(package["kwargs"])
    segment = kwargs["segment"]
    kwargs["segment"] = {"_type": "fraction", "numerator": segment.numerator, "denominator": segment.denominator}
    head = {"klass": "demucs.htdemucs.HTDemucs", "args": "[]", "kwargs": json.dumps(kwargs)}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{signature}.safetensors"
    save_file(package["state"], path, head | metadata)
    return path
