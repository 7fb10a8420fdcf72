"""htdemucs, the separator of the `demucs` package, with this project's sizes, checkpoints and random weights.

The package provides the architecture (`demucs.htdemucs.HTDemucs`, an optional dependency of the export). The graph
covers everything between STFT and inverse STFT, so the module is split there. Importing this module imports no torch.

Source: Rouard, Massa and Defossez, "Hybrid transformers for music source separation", 2023; demucs 4.1.0.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import json
import logging
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heartvoice.checkpoints.random_init import InitFn, InitSpec
from heartvoice.checkpoints.safetensors_reader import PIECE, Array, Checkpoint, TensorSource, listed
from heartvoice.checkpoints.torch_reader import TorchFile
from heartvoice.config.presets import SeparatorConfig
from heartvoice.errors import CheckpointError

if TYPE_CHECKING:
    from torch import nn

_LOG = logging.getLogger(__name__)
KLASS = "demucs.htdemucs.HTDemucs"
_REQUIRED: dict[str, object] = {
    "audio_channels": 2, "channels_time": None, "wiener_iters": 0, "end_iters": 0, "cac": True, "rewrite": True,
    "multi_freqs": None, "t_emb": "sin", "t_norm_in": True, "t_norm_in_group": False, "t_group_norm": False,
    "t_norm_first": True, "t_norm_out": True, "t_layer_scale": True, "t_gelu": True, "t_weight_pos_embed": 1.0,
    "t_sin_random_shift": 0, "t_sparse_self_attn": False, "t_sparse_cross_attn": False, "t_cross_first": False,
    "use_train_segment": True,
}  # fmt: skip
"""Required values of a checkpoint, beyond its sizes; other keyword arguments concern training only."""


# -------------------------------------------------------------------------------------------------------------- module


def build_separator(sizes: SeparatorConfig) -> nn.Module:
    """Build a bag's networks, `models.0` to `models.<n - 1>`, on torch's default device.

    Its method `core(mix, spectrum)` computes what the graph computes. `separate(mix)` computes the package's
    `apply_model` with shifts 0.

    Raises:
        CheckpointError: a network of these sizes is not supported.
    """
    check_sizes(sizes)
    from heartvoice.models.demucs_module import Separator

    return Separator(sizes, module_kwargs(sizes))


def module_kwargs(sizes: SeparatorConfig) -> dict[str, Any]:
    """Return the keyword arguments of `HTDemucs` for one network of the bag."""
    names = inspect.signature(_htdemucs()).parameters
    values = {name: value for name, value in vars(sizes).items() if name in names}
    return values | {"sources": list(sizes.sources), "segment": Fraction(sizes.segment)}


def check_sizes(sizes: SeparatorConfig) -> None:
    """Check that the graph supports these sizes.

    Raises:
        CheckpointError: the message gives field, limit and value.
    """
    widest = sizes.nfft // 2 // sizes.stride ** (sizes.depth - 1)
    wrong = {
        f"audio_channels: expected 2, got {sizes.audio_channels}": sizes.audio_channels != 2,
        f"norm_starts: expected at least depth {sizes.depth}, got {sizes.norm_starts}": sizes.norm_starts < sizes.depth,
        f"depth: {sizes.depth} leaves {widest} bins, expected more than kernel_size {sizes.kernel_size}": (
            widest <= sizes.kernel_size
        ),
        f"n_models: expected 1 or one for each of {len(sizes.sources)} sources, got {sizes.n_models}": (
            sizes.n_models not in (1, len(sizes.sources))
        ),
        f"t_layers: expected at least 1, got {sizes.t_layers}": sizes.t_layers < 1,
        f"overlap: expected 0 <= overlap <= 0.5, got {sizes.overlap}": not 0 <= sizes.overlap <= 0.5,
    }
    for message, is_wrong in wrong.items():
        if is_wrong:
            raise CheckpointError(f"separator: {message}")


def _htdemucs() -> type:
    try:
        from demucs.htdemucs import HTDemucs
    except ImportError as error:
        raise CheckpointError(
            f"separator: demucs is not installed: pip install 'heartvoice[export]' ({error})"
        ) from error
    found: type = HTDemucs
    return found


# ------------------------------------------------------------------------------------------------------ random weights


def separator_init(sizes: SeparatorConfig) -> InitFn:
    """Initial scales of htdemucs: LayerScale near 0.3, so that every branch contributes.

    Each source is about as loud as the mix.
    """

    def init(name: str, shape: tuple[int, ...]) -> InitSpec:
        if name.endswith(".scale"):
            return InitSpec(0.1, mean=0.3)
        if _is_norm(name):
            return InitSpec(0.1, mean=1.0 if name.endswith(".weight") else 0.0)
        if name.endswith("bias"):
            return InitSpec(0.05)
        if name.endswith("embedding.weight"):
            return InitSpec(1.0 / (sizes.emb_scale * max(sizes.freq_emb, 1e-3)))  # the added embedding has deviation 1
        if name.endswith("conv_tr.weight"):
            return InitSpec(1 / math.sqrt(shape[0] * shape[2] / sizes.stride))  # kernel / stride taps sum to a sample
        gain = 2.0 if ".rewrite." in name or name.endswith(".3.weight") else 1.0  # a gate halves its input
        return InitSpec(gain / math.sqrt(math.prod(shape[1:])))

    return init


def _is_norm(name: str) -> bool:
    leaf = name.split(".")
    return any(part.startswith("norm") for part in leaf) or (".dconv." in name and leaf[-2] in ("1", "4"))


# --------------------------------------------------------------------------------------------------- official weights


@dataclass(frozen=True)
class _Bag:
    """Signatures of the networks in a bag's yaml file."""

    origin: str
    models: tuple[str, ...]
    segment: Fraction | None = None


def open_separator(folder: Path, sizes: SeparatorConfig) -> tuple[SeparatorConfig, TensorSource]:
    """Open official weights: `.th` pickles or safetensors, as demucs 4.1.0 publishes them.

    Args:
        folder: contains the files, named by the signatures in a bag's yaml. Without a yaml in the folder, the installed
            package's yaml with as many networks as `sizes` is used.
        sizes: give the number of networks; all other values come from the checkpoint.

    Returns:
        Sizes of the checkpoint, and its tensors as `models.<index>.<name>`.

    Raises:
        CheckpointError: a file is missing or damaged, would run code, or has another architecture, or the networks of
            the bag do not fit together.
    """
    bag = _read_bag(folder, sizes)
    opened = [_open_network(_find(folder, signature)) for signature in bag.models]
    found = [network_sizes for network_sizes, _ in opened]
    different = [bag.models[index] for index, each in enumerate(found) if each != found[0]]
    if different:
        raise CheckpointError(f"{folder}: {listed(different)} and {bag.models[0]} are networks of different sizes")
    first = replace(found[0], n_models=len(bag.models), overlap=sizes.overlap)
    if bag.segment is not None and bag.segment <= Fraction(first.segment):
        first = replace(first, segment=str(bag.segment))
    check_sizes(first)
    return first, _BagTensors(folder, [source for _, source in opened])


def _read_bag(folder: Path, sizes: SeparatorConfig) -> _Bag:
    """Read the yaml in the folder, or the package's."""
    bags = [_parse_bag(path) for path in sorted(folder.glob("*.yaml"))]
    fitting = [bag for bag in bags if len(bag.models) == sizes.n_models]
    if len(bags) == 1:
        return bags[0]
    if bags and len(fitting) != 1:
        raise CheckpointError(f"{folder}: expected one yaml of {sizes.n_models} networks, found {len(fitting)}")
    if fitting:
        return fitting[0]
    spec = importlib.util.find_spec("demucs")
    if spec is None or spec.origin is None:
        raise CheckpointError(f"{folder}: has no yaml, and demucs is not installed: pip install 'heartvoice[export]'")
    name = "htdemucs.yaml" if sizes.n_models == 1 else "htdemucs_ft.yaml"
    return _parse_bag(Path(spec.origin).parent / "remote" / name)


def _parse_bag(path: Path) -> _Bag:
    import yaml

    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
        models = tuple(str(signature) for signature in value["models"])
        weights = value.get("weights")
        segment = value.get("segment")
        bag = _Bag(str(path), models, None if segment is None else Fraction(str(segment)))
    except (OSError, yaml.YAMLError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: not a bag of networks: {error!r}") from error
    if not models or any(Path(signature).name != signature for signature in models):
        raise CheckpointError(f"{path}: models: expected signatures, got {list(models)}")
    identity = [[1.0 if row == column else 0.0 for column in range(len(models))] for row in range(len(models))]
    if len(models) > 1 and weights != identity:
        raise CheckpointError(f"{path}: weights: expected one source from each network, got {weights}")
    return bag


def _find(folder: Path, signature: str) -> Path:
    """Find the file of one network; `.th` names may end in a checksum."""
    names = [f"{signature}.safetensors", f"{signature}.th"]
    found = [folder / name for name in names if (folder / name).is_file()] + sorted(folder.glob(f"{signature}-*.th"))
    if len(found) != 1:
        what = listed([path.name for path in found]) if found else "none"
        raise CheckpointError(f"{folder}: expected one of {signature}.safetensors and {signature}-*.th, found {what}")
    return found[0]


def _open_network(path: Path) -> tuple[SeparatorConfig, TensorSource]:
    return _open_safetensors(path) if path.suffix == ".safetensors" else _open_pickle(path)


def _open_pickle(path: Path) -> tuple[SeparatorConfig, TensorSource]:
    network_class = _htdemucs()
    head: dict[str, Any] = {}

    def pick(package: Any) -> Any:
        head.update(klass=package["klass"], args=package["args"], kwargs=package["kwargs"])
        return package["state"]

    _check_sum(path)
    source = TorchFile.open(path, pick, globals_=(Fraction, network_class))
    if head["klass"] is not network_class:
        raise CheckpointError(f"{path}: klass: expected {KLASS}, got {head['klass']}")
    return _sizes_of(path, head["args"], head["kwargs"]), source


def _check_sum(path: Path) -> None:
    """Check the file against its name, `<signature>-<first digits of its sha256>.th`."""
    _, dash, expected = path.stem.rpartition("-")
    if not dash:
        return
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while block := stream.read(PIECE):
                digest.update(block)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be opened: {error.strerror}") from error
    actual = digest.hexdigest()[: len(expected)]
    if actual != expected:
        raise CheckpointError(f"{path}: damaged: its sha256 begins with {actual}, its name says {expected}")


def _open_safetensors(path: Path) -> tuple[SeparatorConfig, TensorSource]:
    source = Checkpoint.open(path)
    metadata = _metadata(path)
    if metadata.get("klass") != KLASS or "structure" in metadata:
        kind = "a quantized state" if "structure" in metadata else f"klass {metadata.get('klass')}"
        raise CheckpointError(f"{path}: expected a plain state of {KLASS}, got {kind}")
    try:
        args, kwargs = (json.loads(metadata[name], object_hook=_fraction) for name in ("args", "kwargs"))
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise CheckpointError(f"{path}: metadata: expected args and kwargs as JSON: {error!r}") from error
    return _sizes_of(path, args, kwargs), source


def _metadata(path: Path) -> dict[str, Any]:
    """Read the metadata of a safetensors header that has been checked before."""
    with path.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        metadata = json.loads(stream.read(length)).get("__metadata__") or {}
    if not isinstance(metadata, dict):
        raise CheckpointError(f"{path}: __metadata__: expected a JSON object")
    return metadata


def _fraction(value: dict[str, Any]) -> Any:
    if value.get("_type") == "fraction":
        return Fraction(value["numerator"], value["denominator"])
    return value


def _sizes_of(path: Path, args: Sequence[Any], kwargs: Mapping[str, Any]) -> SeparatorConfig:
    """Sizes from the network's constructor arguments; missing ones take the class's defaults."""
    signature = inspect.signature(_htdemucs())
    unknown = [str(name) for name in kwargs if name not in signature.parameters]
    if unknown:
        _LOG.warning("%s: arguments that demucs does not know are ignored: %s", path, listed(unknown))
    try:
        bound = signature.bind(*args, **{name: value for name, value in kwargs.items() if name not in unknown})
        bound.apply_defaults()
        values = dict(bound.arguments)
        wrong = [
            f"{name}: expected {wanted!r}, got {values[name]!r}"
            for name, wanted in _REQUIRED.items()
            if (values[name] or None) != (wanted or None)  # 0, False, [] and None all mean "off"
        ]
        if wrong:
            raise CheckpointError(f"{path}: an architecture that is not supported: {'; '.join(wrong)}")
        growth = int(values["growth"])
        if growth != values["growth"]:
            raise CheckpointError(f"{path}: growth: expected a whole number, got {values['growth']}")
        exact = {"segment": str(Fraction(str(values["segment"]))), "growth": growth}
        return SeparatorConfig.from_config(values | exact)
    except (TypeError, ValueError, LookupError) as error:
        raise CheckpointError(f"{path}: args, kwargs: not those of {KLASS}: {error}") from error


class _BagTensors(TensorSource):
    """Tensors of all networks of a bag, with prefixed names."""

    def __init__(self, folder: Path, parts: Sequence[TensorSource]) -> None:
        self._folder, self._sources = folder, list(parts)
        self._where = {
            f"models.{index}.{name}": (part, name) for index, part in enumerate(parts) for name in part.names
        }
        self.names = frozenset(self._where)

    def __str__(self) -> str:
        """Path of the folder."""
        return str(self._folder)

    def where(self, name: str) -> str:
        """File and tensor."""
        part, inner = self._where[name]
        return part.where(inner)

    def sha256(self) -> dict[str, str]:
        """Hash of each file by its name."""
        hashes: dict[str, str] = {}
        for part in self._sources:
            hashes |= part.sha256()
        return hashes

    def _stored_shape(self, name: str) -> tuple[int, ...]:
        part, inner = self._where[name]
        return part.shape(inner)

    def _pieces(self, name: str) -> Iterator[Array]:
        part, inner = self._where[name]
        return part.pieces(inner)
