"""The converter's official files, as tensors under the networks' names. Source: seed_vc spec, section 0."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from heartvoice.checkpoints.safetensors_reader import Array, Checkpoint, TensorSource, listed
from heartvoice.checkpoints.torch_reader import TorchFile, load_pickle
from heartvoice.config.svc import DitConfig, RegulatorConfig, WhisperConfig
from heartvoice.errors import CheckpointError

PARTS = ("cfm", "length_regulator")
ENCODER = "encoder."
_PICKLED = "pytorch_model.bin"
_SUPPORTED: dict[str, dict[str, Any]] = {
    "length_regulator": {"is_discrete": False, "f0_condition": True},
    "DiT": {
        "style_condition": True,
        "final_layer_type": "mlp",
        "is_causal": False,
        "long_skip_connection": False,
        "zero_prompt_speech_token": False,
        "time_as_token": False,
        "style_as_token": False,
        "uvit_skip_connection": True,
    },
}
"""Supported settings; a checkpoint of another variant would load and give wrong output."""


class RenamedTensors(TensorSource):
    """A source, or a part of one, under other names."""

    def __init__(self, source: TensorSource, rename: Callable[[str], str | None]) -> None:
        """Rename the tensors.

        Args:
            source: original tensors.
            rename: maps a name of the source to the new one; None leaves the tensor out.
        """
        self._source = source
        self._old = {new: old for old in source.names if (new := rename(old)) is not None}
        self.names = frozenset(self._old)

    def __str__(self) -> str:
        """Name of the source."""
        return str(self._source)

    def where(self, name: str) -> str:
        """File and stored name."""
        return self._source.where(self._old.get(name, name))

    def sha256(self) -> dict[str, str]:
        """Hashes of the source's files."""
        return self._source.sha256()

    def _stored_shape(self, name: str) -> tuple[int, ...]:
        return self._source.shape(self._old[name])

    def _pieces(self, name: str) -> Iterator[Array]:
        return self._source.pieces(self._old[name])


def prefixed(source: TensorSource, prefix: str) -> RenamedTensors:
    """Return the tensors under a prefix, with the prefix removed."""
    return RenamedTensors(source, lambda name: name.removeprefix(prefix) if name.startswith(prefix) else None)


# ----------------------------------------------------------------------------------------------- estimator, regulator


def open_seed_vc(path: Path) -> dict[str, TorchFile]:
    """Open the official `DiT_..._f0_44k_....pth`, or a fine-tuned file of the same structure.

    Args:
        path: the file; optimiser states and other networks in it are ignored.

    Returns:
        `cfm` and `length_regulator`. Both hold unused tensors too; loading checks the used ones strictly.

    Raises:
        CheckpointError: the file is missing or damaged, or lacks one of the two networks.
    """
    value = load_pickle(path)
    networks = value.get("net") if isinstance(value, Mapping) else None
    if not isinstance(networks, Mapping):
        raise CheckpointError(f"{path}: expected a dictionary with an entry net")
    return {name: TorchFile(path, _state(path, networks, name)) for name in PARTS}


def _state(path: Path, networks: Mapping[Any, Any], name: str) -> dict[str, Any]:
    import torch

    state = networks.get(name)
    if not isinstance(state, Mapping):
        raise CheckpointError(f"{path}: net holds {listed([str(key) for key in networks])}, but no {name}")
    wrong = [str(key) for key, tensor in state.items() if not isinstance(tensor, torch.Tensor)]
    if wrong:
        raise CheckpointError(f"{path}: net.{name}: not tensors: {listed(wrong)}")
    return {str(key).removeprefix("module."): tensor for key, tensor in state.items()}


def regulator_sizes(params: Mapping[str, Any], *, path: Path | str = "model_params") -> RegulatorConfig:
    """Read the sizes from `model_params` of the configuration next to the official file.

    Args:
        params: settings with the entry `length_regulator`.
        path: name of the file, for messages.

    Raises:
        CheckpointError: the network is an unsupported variant, or a size is missing.
    """
    with _reading(params, "length_regulator", path) as section:
        return RegulatorConfig(
            channels=int(section["channels"]),
            in_channels=int(section["in_channels"]),
            n_f0_bins=int(section["n_f0_bins"]),
            n_stages=len(section["sampling_ratios"]),
        )


def dit_sizes(params: Mapping[str, Any], *, path: Path | str = "model_params") -> DitConfig:
    """Read the sizes from the entries `DiT` and `style_encoder`; see `regulator_sizes`."""
    with _reading(params, "DiT", path) as section:
        return DitConfig(
            hidden_dim=int(section["hidden_dim"]),
            num_heads=int(section["num_heads"]),
            depth=int(section["depth"]),
            in_channels=int(section["in_channels"]),
            content_dim=int(section["content_dim"]),
            style_dim=int(params["style_encoder"]["dim"]),
        )


@contextmanager
def _reading(params: Mapping[str, Any], name: str, path: Path | str) -> Iterator[Mapping[str, Any]]:
    """Yield one section after checking that its variant is supported."""
    try:
        section = params[name]
        for key, wanted in _SUPPORTED[name].items():
            if (found := section.get(key, wanted)) != wanted:
                raise CheckpointError(f"{path}: {name}.{key}: expected {wanted}, got {found}")
        yield section
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: {name}: lacks a size, or it is no number: {error!r}") from error


# -------------------------------------------------------------------------------------------------------------- Whisper


def open_whisper(folder: Path) -> tuple[WhisperConfig, TensorSource]:
    """Open a Whisper snapshot in `transformers`' layout; only the encoder is used.

    Args:
        folder: contains `config.json` and safetensors files, or `pytorch_model.bin`.

    Returns:
        Sizes and the encoder's tensors, named `encoder.*`.

    Raises:
        CheckpointError: a file is missing or damaged, or the encoder is an unsupported variant.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error
    pickled = folder / _PICKLED
    safe = any(folder.glob("*.safetensors*"))
    stored: TensorSource = TorchFile.open(pickled) if pickled.is_file() and not safe else Checkpoint.open(folder)
    source = RenamedTensors(stored, _encoder_name)
    if not source.names:
        raise CheckpointError(f"{stored}: no tensor of Whisper's encoder")
    return whisper_sizes(config, path=path), source


def whisper_sizes(config: Mapping[str, Any], *, path: Path | str = "config.json") -> WhisperConfig:
    """Read the sizes from a Whisper `config.json`.

    Raises:
        CheckpointError: a size is missing, or the activation is not GELU.
    """
    activation = str(config.get("activation_function", "gelu"))
    if activation != "gelu":
        raise CheckpointError(f"{path}: activation_function: expected gelu, got {activation}")
    try:
        return WhisperConfig(**{entry.name: int(config[entry.name]) for entry in fields(WhisperConfig)})
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: lacks a size, or it is no number: {error!r}") from error


def _encoder_name(name: str) -> str | None:
    name = name.removeprefix("model.")
    return name if name.startswith(ENCODER) else None
