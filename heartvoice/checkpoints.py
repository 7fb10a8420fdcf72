"""Find, verify and load weights: official checkpoints on disk, or random ones made on demand.

Everything is read tensor by tensor straight into its destination. The files are not memory-mapped: touched pages of a
mapping would count as this process's memory beside the copies, and a file that shrinks under a mapping kills the
process instead of raising. Importing this module imports no torch.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from heartvoice.errors import CheckpointError
from heartvoice.presets import HeartCodecSizes, HeartMuLaSizes

if TYPE_CHECKING:
    import torch
    from torch import nn

Array = npt.NDArray[Any]
Sizes = HeartMuLaSizes | HeartCodecSizes

_CHUNK = 1 << 22
"""Values converted at a time."""
_FLOATS: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
}
_OTHERS: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("bool"), "U8": np.dtype("u1"), "I8": np.dtype("i1"), "I16": np.dtype("<i2"),
    "I32": np.dtype("<i4"), "I64": np.dtype("<i8"),
}  # fmt: skip
_DTYPES = _FLOATS | _OTHERS
_GAIN, _DIRECTION = ".parametrizations.weight.original0", ".parametrizations.weight.original1"
_MAX_HEADER_BYTES = 100_000_000
_LISTED = 8


class TensorSource(ABC):
    """Named tensors that a network is loaded from.

    Weight norm is spelled torch's way (`parametrizations.weight.original0` and `1`) whatever the source says, and
    `X.weight` of such a pair can be asked for too: it is folded then.
    """

    names: frozenset[str]

    @abstractmethod
    def where(self, name: str) -> str:
        """File and tensor, for messages."""

    @abstractmethod
    def _stored_shape(self, name: str) -> tuple[int, ...]: ...

    @abstractmethod
    def _read(self, name: str) -> Array: ...

    def parts(self, name: str) -> tuple[str, ...]:
        """Names of the stored tensors that `name` is made of: itself, gain and direction, or none."""
        if name in self.names:
            return (name,)
        base = name.removesuffix(".weight")
        pair = (base + _GAIN, base + _DIRECTION)
        return pair if base != name and all(part in self.names for part in pair) else ()

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor; CheckpointError if there is none of that name."""
        return self._stored_shape(self._parts_of(name)[-1])

    def array(self, name: str) -> Array:
        """Read one tensor.

        Returns:
            float32 of any stored float, else the stored dtype; the caller owns it.

        Raises:
            CheckpointError: there is no such tensor, its file cannot be read, or a value is NaN or infinite.
        """
        parts = self._parts_of(name)
        if len(parts) == 1:
            return self._read(name)
        gain, direction = (self._read(part) for part in parts)
        flat = direction.reshape(direction.shape[0], -1)
        norm = np.sqrt(np.einsum("ij,ij->i", flat, flat, dtype=np.float64))
        if gain.size != len(flat) or not norm.all():
            raise CheckpointError(f"{self.where(parts[1])}: weight norm cannot be folded")
        flat *= (gain.reshape(-1) / norm).astype(np.float32)[:, None]
        return direction

    def _parts_of(self, name: str) -> tuple[str, ...]:
        parts = self.parts(name)
        if not parts:
            raise CheckpointError(f"{self}: no tensor {name}")
        return parts


@dataclass(frozen=True)
class _Entry:
    """Where one tensor lies in a safetensors file."""

    path: Path
    stored_name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def count(self) -> int:
        return math.prod(self.shape)


class Checkpoint(TensorSource):
    """Tensors of one safetensors file, or of the shards that an index lists."""

    def __init__(self, source: Path, entries: dict[str, _Entry]) -> None:
        """Use `Checkpoint.open`."""
        self._source = source
        self._entries = entries
        self.names = frozenset(entries)

    @classmethod
    def open(cls, path: Path | str) -> Checkpoint:
        """Open a checkpoint and check its headers; tensors are read later.

        Args:
            path: a `.safetensors` file, an index, or a folder with `model.safetensors`, one
                `*.safetensors.index.json`, or a single `*.safetensors`.

        Raises:
            CheckpointError: nothing is there, or a file is damaged.
        """
        source = _find(Path(path))
        entries: dict[str, _Entry] = {}
        for file in _shards(source) if source.suffix == ".json" else [source]:
            for entry in _read_header(file):
                name = _canonical(entry.stored_name)
                if name in entries:
                    raise CheckpointError(f"{file}: tensor {name} is also in {entries[name].path}")
                entries[name] = entry
        if source.suffix == ".json":
            absent = [name for name in _weight_map(source) if _canonical(name) not in entries]
            if absent:
                raise CheckpointError(f"{source}: shards lack {listed(absent)}")
        return cls(source, entries)

    def __str__(self) -> str:
        """The file or index that was opened."""
        return str(self._source)

    def where(self, name: str) -> str:
        """File and the name it uses."""
        entry = self._entries[name]
        return f"{entry.path}: {entry.stored_name}"

    @property
    def config(self) -> dict[str, Any]:
        """The `config.json` beside the weights.

        Raises:
            CheckpointError: it is missing or not a JSON object.
        """
        return _read_json(self._source.parent / "config.json")

    def sha256(self) -> dict[str, str]:
        """Hash of each weights file by name; reads them whole."""
        hashes = {}
        for file in sorted({entry.path for entry in self._entries.values()}):
            with _opened(file) as stream:
                hashes[file.name] = hashlib.file_digest(stream, "sha256").hexdigest()
        return hashes

    def _stored_shape(self, name: str) -> tuple[int, ...]:
        return self._entries[name].shape

    def _read(self, name: str) -> Array:
        entry = self._entries[name]
        with _opened(entry.path) as stream:
            stream.seek(entry.offset)
            if entry.dtype in _OTHERS:
                return _read_exactly(stream, np.empty(entry.shape, _OTHERS[entry.dtype]), self.where(name))
            out = np.empty(entry.shape, np.float32)
            flat = out.reshape(-1)
            for start in range(0, entry.count, _CHUNK):
                part = flat[start : start + _CHUNK]
                _read_floats(stream, part, entry.dtype, self.where(name))
                if not np.isfinite(part).all():
                    raise CheckpointError(f"{self.where(name)}: holds a value that is not finite in float32")
        return out


def listed(names: list[str]) -> str:
    """The first names and how many more there are, for messages."""
    rest = len(names) - _LISTED
    return ", ".join(sorted(names)[:_LISTED]) + (f" and {rest} more" if rest > 0 else "")


def _opened(path: Path) -> io.BufferedReader:
    try:
        return path.open("rb")
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be opened: {error.strerror}") from error


def _find(path: Path) -> Path:
    if not path.is_dir():
        return path
    single = path / "model.safetensors"
    if single.is_file():
        return single
    for pattern in ("*.safetensors.index.json", "*.safetensors"):
        found = sorted(path.glob(pattern))
        if len(found) > 1:
            raise CheckpointError(f"{path}: expected one {pattern}, found {listed([file.name for file in found])}")
        if found:
            return found[0]
    raise CheckpointError(f"{path}: no model.safetensors, index or other safetensors file")


def _read_json(path: Path) -> dict[str, Any]:
    with _opened(path) as stream:
        try:
            value = json.load(stream)
        except ValueError as error:
            raise CheckpointError(f"{path}: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a JSON object")
    return value


def _weight_map(index: Path) -> dict[str, str]:
    weight_map = _read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
        raise CheckpointError(f"{index}: expected a weight_map from tensors to files")
    return weight_map


def _shards(index: Path) -> Iterator[Path]:
    for name in sorted(set(_weight_map(index).values())):
        if Path(name).name != name:
            raise CheckpointError(f"{index}: shard {name!r} is not a plain file name")
        yield index.parent / name


def _read_header(path: Path) -> Iterator[_Entry]:
    """Entries of a safetensors file: an 8-byte length, a JSON header, then the tensors."""
    with _opened(path) as stream:
        size = path.stat().st_size
        prefix = stream.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else size
        if length > min(size - 8, _MAX_HEADER_BYTES):
            raise CheckpointError(f"{path}: truncated, or not a safetensors file")
        try:
            header = json.loads(stream.read(length))
        except ValueError as error:
            raise CheckpointError(f"{path}: damaged header: {error}") from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: damaged header: expected a JSON object")
    for name, value in header.items():
        if name != "__metadata__":
            yield _entry(path, name, value, 8 + length, size)


def _entry(path: Path, name: str, value: Any, base: int, size: int) -> _Entry:
    try:
        dtype, shape = str(value["dtype"]), tuple(int(axis) for axis in value["shape"])
        start, end = (int(offset) for offset in value["data_offsets"])
    except (TypeError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: {name}: damaged header entry") from error
    if dtype not in _DTYPES:
        raise CheckpointError(f"{path}: {name}: dtype {dtype} is not supported")
    if min(shape, default=0) < 0 or start < 0 or end - start != math.prod(shape) * _DTYPES[dtype].itemsize:
        raise CheckpointError(f"{path}: {name}: {end - start} bytes do not hold {dtype} {list(shape)}")
    if base + end > size:
        raise CheckpointError(f"{path}: truncated: {name} ends at byte {base + end}, the file at {size}")
    return _Entry(path, name, dtype, shape, base + start)


def _canonical(name: str) -> str:
    """Spell weight norm torch's way."""
    for old, new in ((".weight_g", _GAIN), (".weight_v", _DIRECTION)):
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def _read_exactly(stream: io.BufferedReader, out: Array, where: str) -> Array:
    view = out.reshape(-1).view(np.uint8)
    if stream.readinto(view.data) != view.size:
        raise CheckpointError(f"{where}: the file ends inside the tensor")
    return out


def _read_floats(stream: io.BufferedReader, out: npt.NDArray[np.float32], dtype: str, where: str) -> None:
    """Read `out.size` stored floats into contiguous float32 [count]."""
    if dtype == "F32":
        _read_exactly(stream, out, where)
        return
    raw = _read_exactly(stream, np.empty(out.size, _FLOATS[dtype]), where)
    if dtype == "BF16":  # the upper half of a float32
        np.left_shift(raw, 16, out=out.view(np.uint32), dtype=np.uint32)
    else:
        with np.errstate(over="ignore"):  # becomes infinite, which the caller reports
            out[:] = raw


# -------------------------------------------------------------------------------------------------------- networks


def build_module(sizes: Sizes, *, decode_only: bool = False) -> nn.Module:
    """A network on torch's meta device: names and shapes, no memory.

    Args:
        sizes: decide the network, HeartMuLa or HeartCodec.
        decode_only: HeartCodec without what only training and encoding use.
    """
    import torch

    from heartvoice.models.heartcodec.codec import HeartCodec
    from heartvoice.models.heartmula import HeartMuLa

    with torch.device("meta"):
        if isinstance(sizes, HeartMuLaSizes):
            return HeartMuLa(sizes)
        return HeartCodec(sizes, decode_only=decode_only)


def manifest(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a network's tensors: those of the module itself, so that there is one truth."""
    return {name: tuple(tensor.shape) for name, tensor in build_module(sizes).state_dict().items()}


def load_module(
    module: nn.Module, source: TensorSource, *, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> None:
    """Give every tensor of a module its value, one at a time and without a second copy.

    Args:
        module: on any device, meta included. Its method `never_read(name)`, if it has one, says which tensors a
            checkpoint may lack (they become zero) or have in vain.
        source: the values.
        dtype: of floating-point tensors; None is float32.
        device: where the values go.

    Raises:
        CheckpointError: a tensor is missing, unknown, misshapen or not finite. Nothing is loaded unless names and
            shapes all fit.
    """
    import torch

    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    never_read = getattr(module, "never_read", lambda name: False)
    _check_names(wanted, source, never_read)
    for name, shape in wanted.items():
        value = torch.from_numpy(source.array(name)) if source.parts(name) else torch.zeros(shape)
        if value.is_floating_point():
            value = value.to(device=device, dtype=dtype)
            if dtype is torch.float16 and not bool(value.isfinite().all()):
                raise CheckpointError(f"{source.where(source.parts(name)[-1])}: too large for float16")
        _assign(module, name, value.to(device))


def _check_names(wanted: dict[str, tuple[int, ...]], source: TensorSource, never_read: Callable[[str], bool]) -> None:
    missing = [name for name in wanted if not source.parts(name) and not never_read(name)]
    if missing:
        raise CheckpointError(f"{source}: missing {listed(missing)}")
    used = {part for name in wanted for part in source.parts(name)}
    unknown = [name for name in source.names - used if not never_read(name)]
    if unknown:
        raise CheckpointError(f"{source}: unknown {listed(unknown)}")
    for name, shape in wanted.items():
        parts = source.parts(name)
        if parts and source.shape(name) != shape:
            where = source.where(parts[-1])
            raise CheckpointError(f"{where}: expected shape {list(shape)}, got {list(source.shape(name))}")


def _assign(module: nn.Module, name: str, value: torch.Tensor) -> None:
    from torch import nn

    path, _, leaf = name.rpartition(".")
    owner = module.get_submodule(path)
    if leaf in owner._parameters:
        owner._parameters[leaf] = nn.Parameter(value, requires_grad=False)
    else:
        owner._buffers[leaf] = value


def load_network(
    sizes: Sizes,
    source: TensorSource,
    *,
    decode_only: bool = False,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> nn.Module:
    """Build and load a network, in evaluation mode; arguments as for `build_module` and `load_module`."""
    module = build_module(sizes, decode_only=decode_only)
    load_module(module, source, dtype=dtype, device=device)
    return module.eval()


def random_checkpoint(sizes: Sizes, seed: int) -> TensorSource:
    """Random weights of a network, made tensor by tensor when asked for; the output of such a network is noise."""
    from heartvoice.models.random_weights import RandomCheckpoint, heartcodec_law, heartmula_law

    law = heartmula_law(sizes) if isinstance(sizes, HeartMuLaSizes) else heartcodec_law(sizes)
    return RandomCheckpoint(manifest(sizes), seed, law)
