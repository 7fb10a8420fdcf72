"""Published RoFormer checkpoints: pickled state dicts, and the configurations beside them.

Source: roformer spec, sections 0 and 4; keys of the published configurations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from heartvoice.checkpoints.safetensors_reader import TensorSource, listed
from heartvoice.checkpoints.torch_reader import TorchFile
from heartvoice.config.roformer import RoformerConfig
from heartvoice.errors import CheckpointError

RATE_HZ = 44_100
_SIZES = {
    "dim", "depth", "stereo", "num_stems", "time_transformer_depth", "freq_transformer_depth", "freqs_per_bands",
    "num_bands", "bands_first_last_bin", "dim_head", "heads", "mask_estimator_depth", "sample_rate", "stft_n_fft",
    "stft_hop_length", "stft_win_length", "linear_transformer_depth",
}  # fmt: skip
_REQUIRED: dict[str, dict[str, object]] = {
    "model": {"stft_normalized": False, "skip_connection": False, "mlp_expansion_factor": 4, "zero_dc": False},
    "audio": {"sample_rate": RATE_HZ},
    "inference": {"normalize": False},
}
"""Settings with one supported value; another one would load and give wrong stems."""
_IGNORED: dict[str, set[str]] = {
    # Training, speed, and the switch that pads a chunk which is no multiple of the hop.
    "model": {
        "attn_dropout", "ff_dropout", "flash_attn", "multi_stft_resolution_loss_weight", "multi_stft_hop_size",
        "multi_stft_resolutions_window_sizes", "multi_stft_normalized", "use_torch_checkpoint",
        "match_input_audio_length",
    },
    # Settings that other networks of the same training code read.
    "audio": {"dim_f", "dim_t", "hop_length", "n_fft", "min_mean_abs"},
    "inference": {"batch_size", "dim_t"},
}  # fmt: skip
_READ: dict[str, set[str]] = {
    "model": {*_SIZES, "dim_freqs_in"},
    "audio": {"chunk_size", "num_channels"},
    "inference": {"num_overlap"},
}


def open_roformer(path: Path, sizes: RoformerConfig) -> tuple[RoformerConfig, TensorSource]:
    """Open a published checkpoint.

    Args:
        path: the file, or the folder that holds it alone. A configuration `.yaml` of the same name, or the folder's
            only one, gives the sizes.
        sizes: where there is no configuration; and the separator's name.

    Returns:
        The sizes, and the tensors by the network's names. No tensor is checked yet.

    Raises:
        CheckpointError: a file is missing, damaged or ambiguous, would run code, or describes another network.
    """
    file = _checkpoint(path, sizes)
    config = _configuration(file)
    found = sizes if config is None else read_configuration(config, sizes)
    return found, TorchFile.open(file)


def _checkpoint(path: Path, sizes: RoformerConfig) -> Path:
    if path.is_file():
        return path
    found = sorted(each for each in path.glob("*.ckpt") if each.is_file())
    if len(found) != 1:
        names = listed([each.name for each in found]) if found else "none"
        raise CheckpointError(
            f"{path}: expected one *.ckpt and its *.yaml, found {names}; "
            f"`heartvoice weights pull --only {sizes.name}` fetches one"
        )
    return found[0]


def _configuration(file: Path) -> Path | None:
    named = [file.with_suffix(ending) for ending in (".yaml", ".yml")]
    beside = [each for each in named if each.is_file()] or sorted((*file.parent.glob("*.yaml"),))
    if len(beside) > 1:
        names = listed([each.name for each in beside])
        raise CheckpointError(f"{file}: expected {named[0].name} or one *.yaml beside it, found {names}")
    return beside[0] if beside else None


def read_configuration(path: Path, sizes: RoformerConfig) -> RoformerConfig:
    """Read sizes, chunks and names of stems from a published configuration.

    Args:
        path: its sections `model`, `audio` and `inference` are read strictly, of `training` the instruments.
        sizes: gives the separator's name, and the names of stems that the file does not name.

    Raises:
        CheckpointError: not such a file, or it has an unknown or unsupported setting; names section and key.
    """
    document = _load(path)
    sections = {name: _section(path, document, name) for name in _READ}
    model, audio = sections["model"], sections["audio"]
    if not model:
        raise CheckpointError(f"{path}: expected a section model")
    values = {key: value for key, value in model.items() if key in _SIZES}
    if "chunk_size" in audio:
        values["chunk_size"] = audio["chunk_size"]
    if "num_overlap" in sections["inference"]:
        values["num_overlap"] = sections["inference"]["num_overlap"]
    _check_types(path, values)
    stems = _stems(path, _mapping(path, document, "training"), model.get("num_stems", 1), sizes)
    try:
        found = replace(RoformerConfig.from_published(values | {"stems": stems}), name=sizes.name)
    except (CheckpointError, TypeError, ValueError, LookupError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    for section, key, expected in (
        ("model", "dim_freqs_in", found.n_bins), ("audio", "num_channels", 2), ("model", "sample_rate", RATE_HZ),
    ):  # fmt: skip
        _expect(path, section, sections[section], key, expected)
    return found


def _load(path: Path) -> dict[str, Any]:
    """Parse a file with tuples, which published ones have, and without any other Python object."""
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
        pass

    Loader.add_constructor("tag:yaml.org,2002:python/tuple", lambda loader, node: loader.construct_sequence(node))
    try:
        value = yaml.load(path.read_text(encoding="utf-8"), Loader)  # noqa: S506  # a SafeLoader
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path}: cannot be read: {reason}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected sections, got {type(value).__name__}")
    return value


def _mapping(path: Path, document: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = document.get(name) or {}
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: {name}: expected a section, got {type(value).__name__}")
    return value


def _section(path: Path, document: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a section whose keys are all known."""
    section = _mapping(path, document, name)
    unknown = [str(key) for key in section if key not in _READ[name] | _IGNORED[name] | _REQUIRED[name].keys()]
    if unknown:
        raise CheckpointError(f"{path}: {name}: unknown {listed(unknown)}")
    for key, expected in _REQUIRED[name].items():
        _expect(path, name, section, key, expected)
    return section


def _expect(path: Path, name: str, section: Mapping[str, Any], key: str, expected: object) -> None:
    if section.get(key, expected) != expected:
        raise CheckpointError(f"{path}: {name}.{key}: expected {expected}, got {section[key]!r}")


def _check_types(path: Path, values: Mapping[str, Any]) -> None:
    """Refuse sizes that are no whole numbers."""
    for key, value in values.items():
        if key == "stereo":
            right, kind = isinstance(value, bool), "true or false"
        elif key == "freqs_per_bands":
            right, kind = isinstance(value, list) and all(_is_size(each) for each in value), "a list of sizes"
        elif key == "bands_first_last_bin":
            right, kind = isinstance(value, list), "a list of pairs"
        else:
            right, kind = _is_size(value) or (value == 0 and key == "linear_transformer_depth"), "a size"
        if not right:
            raise CheckpointError(f"{path}: {key}: expected {kind}, got {value!r}")


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _stems(path: Path, training: Mapping[str, Any], count: object, sizes: RoformerConfig) -> list[str]:
    """Names of the stems: the target of a network with one, else all instruments; where unnamed, those of `sizes`."""
    target, instruments = training.get("target_instrument"), training.get("instruments") or []
    if not isinstance(instruments, list):
        raise CheckpointError(f"{path}: training.instruments: expected a list, got {instruments!r}")
    named = [target] if target else instruments
    names = [str(name).lower() for name in named] or list(sizes.stems)
    if len(names) != count:
        raise CheckpointError(f"{path}: training: expected names of {count} stems, got {', '.join(names)}")
    # A network that finds all but the vocals calls them "other".
    return ["instrumental"] if names == ["other"] else names
