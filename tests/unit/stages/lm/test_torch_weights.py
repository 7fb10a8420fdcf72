"""The weights of the engine over PyTorch: those that the repository was exported from, or none."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from heartvoice.config.presets import PRESETS
from heartvoice.errors import CheckpointError, EngineError
from heartvoice.models.load import manifest, random_checkpoint
from heartvoice.runtime.repository import Repository
from heartvoice.stages.lm.torch_weights import open_lm_weights, sees_gpu

SIZES = PRESETS["tiny"].lm


class Exported(Repository):
    """A repository whose index is given."""

    def __init__(self, origin: str) -> None:
        object.__setattr__(self, "index", {"origins": {"lm": origin}})
        object.__setattr__(self, "preset", PRESETS["tiny"])


def config(**changes: Any) -> str:
    def explicit(name: str) -> dict[str, Any]:
        return dict(vars(getattr(SIZES, name)))

    fields = {name: getattr(SIZES, name) for name in ("text_vocab_size", "audio_vocab_size", "muq_dim")}
    return json.dumps({"backbone": explicit("backbone"), "decoder": explicit("decoder"), **fields, **changes})


def test_a_gpu_needs_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    for gpu in (True, False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda found=gpu: found)
        assert sees_gpu() == gpu
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not sees_gpu()


def test_random_weights_are_those_of_the_export() -> None:
    source = open_lm_weights(Exported("random seed=12"), None)
    name = "codebook0_head.weight"
    np.testing.assert_array_equal(source.array(name), random_checkpoint(SIZES, 12).array(name))


def test_official_weights_are_read_from_their_folder(tmp_path: Path) -> None:
    save_file(
        {name: np.zeros(shape, np.float32) for name, shape in manifest(SIZES).items()}, tmp_path / "model.safetensors"
    )
    (tmp_path / "config.json").write_text(config())
    assert open_lm_weights(Exported("official"), str(tmp_path)).names == set(manifest(SIZES))
    (tmp_path / "config.json").write_text(config(muq_dim=7))
    with pytest.raises(EngineError, match=r"weights: .* holds a network of .*muq_dim=7"):
        open_lm_weights(Exported("official"), str(tmp_path))


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"weights: .* name its folder"):
        open_lm_weights(Exported("official"), None)
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        open_lm_weights(Exported("official"), str(tmp_path))


def test_variable_names_the_folder_that_was_pulled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "HeartMuLa-oss-3B"
    folder.mkdir()
    save_file(
        {name: np.zeros(shape, np.float32) for name, shape in manifest(SIZES).items()}, folder / "model.safetensors"
    )
    (folder / "config.json").write_text(config())
    monkeypatch.delenv("HEARTVOICE_WEIGHTS", raising=False)
    with pytest.raises(EngineError, match="or the one above it in HEARTVOICE_WEIGHTS"):
        open_lm_weights(Exported("official"), None)
    monkeypatch.setenv("HEARTVOICE_WEIGHTS", str(tmp_path))
    assert open_lm_weights(Exported("official"), None).names == set(manifest(SIZES))
