"""Configs and adapters: the files of a model repository that are generated from the contracts. Light to import."""

from __future__ import annotations

from pathlib import Path

import heartvoice
from heartvoice.contracts import triton_config
from heartvoice.contracts.adapters import ADAPTERS, adapter_text
from heartvoice.contracts.models import MODELS
from heartvoice.contracts.types import ModelSpec
from heartvoice.errors import ExportError

COMMITTED = Path(heartvoice.__file__).parents[1] / "model_repository"
"""The generated files that a checkout shows; an installation has none."""
ADAPTER = "1/model.py"


def configs(model: ModelSpec) -> dict[str, str]:
    """A model's configs: path relative to the repository, text."""
    return {
        triton_config.config_path(model, variant): triton_config.to_config_text(model, variant)
        for variant in triton_config.variants(model)
    }


def model_files(model: ModelSpec) -> dict[str, str]:
    """A model's configs and adapter: path relative to the repository, text."""
    files = configs(model)
    if model.name in ADAPTERS:
        files[f"{model.name}/{ADAPTER}"] = adapter_text(model.name)
    return files


def in_folder(files: dict[str, str]) -> dict[str, bytes]:
    """The same files by their path relative to the model's folder, as they are written."""
    return {name.partition("/")[2]: text.encode() for name, text in files.items()}


def write_committed(folder: Path = COMMITTED) -> list[Path]:
    """Regenerate a checkout's `model_repository`; returns the files whose text changed.

    Raises:
        ExportError: the folder is missing, since this is no checkout.
    """
    check_checkout(folder)
    changed = []
    for model in MODELS.values():
        for name, text in model_files(model).items():
            path = folder / name
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
                changed.append(path)
    return changed


def check_checkout(folder: Path) -> None:
    """Refuse an installation, which has no committed files.

    Raises:
        ExportError: the folder is missing.
    """
    if not folder.is_dir():
        raise ExportError(f"{folder}: missing; only a checkout of heartvoice has it")
