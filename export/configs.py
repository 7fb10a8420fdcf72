"""Generates a model repository's configs and adapters from the contracts. Light to import."""

from __future__ import annotations

from pathlib import Path

import heartvoice
from heartvoice.contracts import triton_config
from heartvoice.contracts.adapters import ADAPTERS, adapter_text
from heartvoice.contracts.models import MODELS
from heartvoice.contracts.types import ModelSpec
from heartvoice.errors import ExportError
from heartvoice.file_errors import write_file

COMMITTED = Path(heartvoice.__file__).parents[1] / "model_repository"
"""Folder of the generated files in a checkout; an installation has none."""
ADAPTER = "1/model.py"


def configs(model: ModelSpec) -> dict[str, str]:
    """Return a model's configs as text by path relative to the repository."""
    return {
        triton_config.config_path(model, variant): triton_config.to_config_text(model, variant)
        for variant in triton_config.variants(model)
    }


def model_files(model: ModelSpec) -> dict[str, str]:
    """Return a model's configs and adapter as text by path relative to the repository."""
    files = configs(model)
    if model.name in ADAPTERS:
        files[f"{model.name}/{ADAPTER}"] = adapter_text(model.name)
    return files


def in_folder(files: dict[str, str]) -> dict[str, bytes]:
    """Return the same files by path relative to the model's folder, as they are written."""
    return {name.partition("/")[2]: text.encode() for name, text in files.items()}


def write_committed(folder: Path = COMMITTED) -> list[Path]:
    """Regenerate a checkout's `model_repository`; return the files whose text changed.

    Raises:
        ExportError: the folder is missing, because this is an installation and not a checkout.
    """
    check_checkout(folder)
    changed = []
    for model in MODELS.values():
        for name, text in model_files(model).items():
            path = folder / name
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_file(path, text)
                changed.append(path)
    return changed


def check_checkout(folder: Path) -> None:
    """Refuse an installation, which has no committed files.

    Raises:
        ExportError: the folder is missing.
    """
    if not folder.is_dir():
        raise ExportError(f"{folder}: missing; only a checkout of heartvoice has it")
