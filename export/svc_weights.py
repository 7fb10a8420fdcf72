"""Opens the converter's official files: `seed-vc/`, `whisper-small/` and `bigvgan/` in one folder.

Source: seed_vc spec, sections 0 and 7.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from heartvoice.checkpoints.official import BIGVGAN, SEED_VC, WHISPER
from heartvoice.config.presets import DitConfig, RegulatorConfig, SvcConfig
from heartvoice.contracts.network_names import Network
from heartvoice.errors import CheckpointError
from heartvoice.models.load import TensorSource

_RATE: Mapping[str, Any] = {"sr": 44_100}
_SPECTRUM: Mapping[str, Any] = {"n_fft": 2048, "win_length": 2048, "hop_length": 512, "fmin": 0, "fmax": "None"}
"""Our mel settings; a checkpoint trained with other settings would load and give wrong audio."""


def open_converter(folder: Path, sizes: SvcConfig) -> tuple[SvcConfig, dict[Network, TensorSource]]:
    """Open the converter's networks except the style encoder.

    Args:
        folder: holds `seed-vc/` (one .pth, official or fine-tuned, with its .yml), `whisper-small/` and `bigvgan/`
            (each `config.json` and weights).
        sizes: of flow and regulator without a .yml; the other networks' files state their sizes.

    Returns:
        The sizes from the files, and the networks' tensors.

    Raises:
        CheckpointError: a file is missing, damaged or of another kind, or the networks do not fit one another.
    """
    from heartvoice.checkpoints.seed_vc import open_seed_vc, open_whisper
    from heartvoice.models.bigvgan import open_bigvgan

    checkpoints, configs = _named(folder / SEED_VC, ".pth"), _named(folder / SEED_VC, ".yml", ".yaml")
    if len(checkpoints) != 1 or len(configs) > 1:
        names = ", ".join(path.name for path in checkpoints + configs) or "none"
        raise CheckpointError(f"{folder / SEED_VC}: expected one *.pth and its *.yml, found {names}")
    regulator, dit = _configured(configs[0]) if configs else (sizes.regulator, sizes.dit)
    whisper_sizes, whisper = open_whisper(folder / WHISPER)
    vocoder_sizes, vocoder = open_bigvgan(folder / BIGVGAN)
    try:
        found = SvcConfig(whisper_sizes, regulator, dit, vocoder_sizes)
    except ValueError as error:
        raise CheckpointError(
            f"{folder}: {SEED_VC}, {WHISPER} and {BIGVGAN} do not belong together: {error}"
        ) from error
    parts = open_seed_vc(checkpoints[0])
    return found, {
        "svc_content": whisper,
        "svc_regulator": parts["length_regulator"],
        "svc_cfm": parts["cfm"],
        "vocoder": vocoder,
    }


def _named(folder: Path, *endings: str) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.suffix in endings and path.is_file())


def _configured(path: Path) -> tuple[RegulatorConfig, DitConfig]:
    """Read regulator and flow from the configuration next to the checkpoint."""
    import yaml

    from heartvoice.checkpoints.seed_vc import dit_sizes, regulator_sizes

    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error
    params = config.get("model_params") if isinstance(config, dict) else None
    if not isinstance(params, dict):
        raise CheckpointError(f"{path}: expected an entry model_params")
    front_end = config.get("preprocess_params") or {}
    _check(path, "preprocess_params", front_end, _RATE)
    _check(path, "preprocess_params.spect_params", front_end.get("spect_params") or {}, _SPECTRUM)
    return regulator_sizes(params, path=path), dit_sizes(params, path=path)


def _check(path: Path, section: str, values: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse another front end; missing entries of a configuration take the official values."""
    for key, expected in wanted.items():
        if str(values.get(key, expected)) != str(expected):
            raise CheckpointError(f"{path}: {section}.{key}: expected {expected}, got {values[key]}")
