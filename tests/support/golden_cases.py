"""Find golden vectors: in tests/golden, and in every folder that HEARTVOICE_GOLDEN lists (separated like PATH).

A root holds families, a family holds golden folders: config.json and io.safetensors, at any depth. A folder is found
by its family and name (`seed_vc/dit`), since families share names; those of HeartMuLa and HeartCodec (family
`heartlib`) by what their config holds, whatever their size. Sizes, seeds and cases are read, never assumed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import load_file

OWN_ROOT = Path(__file__).parents[1] / "golden"
Tensors = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class GoldenFolder:
    """One folder of vectors."""

    label: str
    path: Path
    kind: str
    """"heartmula", "heartcodec", or family and folder as in "seed_vc/dit"."""

    @property
    def config(self) -> dict[str, Any]:
        return _config(self.path)

    @property
    def cases(self) -> dict[str, dict[str, Any]]:
        """Arguments of each case; a root's folder may have none beside its tensors."""
        cases: dict[str, dict[str, Any]] = self.config.get("cases", {})
        return cases

    @property
    def io(self) -> Tensors:
        """Every recorded tensor; read-only."""
        return _tensors(self.path / "io.safetensors")

    @property
    def weights(self) -> Tensors:
        return _tensors(self.path / "weights.safetensors")


@dataclass(frozen=True)
class Golden:
    """One case: its folder, name and arguments."""

    folder: GoldenFolder
    name: str
    args: dict[str, Any]

    def __getitem__(self, tensor: str) -> npt.NDArray[Any]:
        """Tensor `<case>.<tensor>`."""
        return self.folder.io[f"{self.name}.{tensor}"]

    def __contains__(self, tensor: str) -> bool:
        return f"{self.name}.{tensor}" in self.folder.io


@lru_cache(maxsize=64)
def _config(path: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((path / "config.json").read_text())
    return config


@lru_cache(maxsize=16)
def _tensors(path: Path) -> Tensors:
    tensors: Tensors = load_file(path)
    return tensors


def _kind(path: Path, family: str) -> str:
    if family == "heartlib" and (path / "weights.safetensors").is_file():
        if "backbone" in _config(path):
            return "heartmula"
        if "num_quantizers" in _config(path):
            return "heartcodec"
    return f"{family}/{path.name}"


def roots() -> list[Path]:
    """tests/golden, then the folders of HEARTVOICE_GOLDEN."""
    listed = os.environ.get("HEARTVOICE_GOLDEN", "").split(os.pathsep)
    return [OWN_ROOT, *(Path(entry) for entry in listed if entry)]


@lru_cache(maxsize=1)
def all_folders() -> tuple[GoldenFolder, ...]:
    """Every golden folder of every root; a copy of one that an earlier root holds is left out.

    Raises:
        FileNotFoundError: a root holds none, so a mistyped path cannot pass for a green run.
    """
    found, seen = [], set()
    for root in roots():
        paths = sorted(config.parent for config in root.rglob("config.json"))
        paths = [path for path in paths if (path / "io.safetensors").is_file()]
        if not paths:
            raise FileNotFoundError(f"{root}: no golden vectors (folders with config.json and io.safetensors)")
        for path in paths:
            content = _content(path)
            if content in seen:
                continue
            seen.add(content)
            inner = path.relative_to(root)
            label = "/".join([*root.resolve().parts[-2:], *inner.parts])
            found.append(GoldenFolder(label, path, _kind(path, inner.parts[0])))
    return tuple(found)


def _content(path: Path) -> tuple[tuple[str, str], ...]:
    """Names and hashes of a folder's files."""
    files = sorted(file for file in path.iterdir() if file.is_file())
    return tuple((file.name, hashlib.sha256(file.read_bytes()).hexdigest()) for file in files)


def families() -> set[str]:
    """Return the families that the roots hold."""
    return {"heartlib" if "/" not in folder.kind else folder.kind.split("/")[0] for folder in all_folders()}


def folders(kind: str) -> list[GoldenFolder]:
    """Golden folders of one kind."""
    return [folder for folder in all_folders() if folder.kind == kind]


def folder_params(kind: str) -> list[Any]:
    """One pytest parameter for each folder of a kind."""
    return [pytest.param(folder, id=folder.label) for folder in folders(kind)]


def case_params(kind: str, wanted: Callable[[str, dict[str, Any]], bool]) -> list[Any]:
    """One pytest parameter for each listed case that `wanted(name, arguments)`; its id names root and case."""
    return [
        _param(folder, name, args)
        for folder in folders(kind)
        for name, args in folder.cases.items()
        if wanted(name, args)
    ]


def tensor_params(kind: str, pattern: str) -> list[Any]:
    """One pytest parameter for each case that shows only in tensor names.

    Args:
        kind: of folder.
        pattern: matched against whole tensor names; its first group is the case's name.
    """
    return [
        _param(folder, name, folder.cases.get(name, {}))
        for folder in folders(kind)
        for name in _first_groups(folder.io, pattern)
    ]


def _first_groups(names: Iterable[str], pattern: str) -> list[str]:
    matches = (re.fullmatch(pattern, name) for name in names)
    return sorted({match.group(1) for match in matches if match})


def _param(folder: GoldenFolder, name: str, args: dict[str, Any]) -> Any:
    return pytest.param(Golden(folder, name, args), id=f"{folder.label}::{name}")


def assert_close(actual: Any, expected: npt.NDArray[Any], atol: float) -> None:
    """Compare a tensor or array with a golden one: same shape, absolute tolerance."""
    array = np.asarray(actual.detach() if hasattr(actual, "detach") else actual)
    assert array.shape == expected.shape
    np.testing.assert_allclose(array, expected, rtol=0, atol=atol)
