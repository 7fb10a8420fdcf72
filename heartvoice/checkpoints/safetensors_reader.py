"""Tensor sources: safetensors files, read in pieces. Use it through `heartvoice.models.load`.

The files are not memory-mapped, for two reasons: touched pages of a mapping would count as this process's memory in
addition to the copies, and a file that shrinks under a mapping kills the process instead of raising. No torch.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import struct
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from heartvoice.errors import CheckpointError

Array = npt.NDArray[Any]

PIECE = 1 << 18
"""Values read at a time; small next to any network, because freed pieces fragment the heap."""
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
    """Named tensors from which a network is loaded.

    Weight norm has torch's spelling (`parametrizations.weight.original0` and `1`) in every source. `X.weight` of such
    a pair can be read too; it is folded then.
    """

    names: frozenset[str]

    @abstractmethod
    def where(self, name: str) -> str:
        """File and tensor, for messages."""

    @abstractmethod
    def _stored_shape(self, name: str) -> tuple[int, ...]: ...

    def _pieces(self, name: str) -> Iterator[Array]:
        """Yield at least one flat piece of the values: floats as float32, others in their dtype."""
        yield self._read(name).reshape(-1)

    def _read(self, name: str) -> Array:
        """Read the whole tensor; for sources that do not override `_pieces`."""
        raise NotImplementedError(f"{type(self).__name__} implements neither _pieces nor _read, asked for {name}")

    def sha256(self) -> dict[str, str]:
        """Hash of each source file by its name."""
        raise NotImplementedError(f"{type(self).__name__} has no files")

    def parts(self, name: str) -> tuple[str, ...]:
        """Return the stored tensors that make up `name`: itself, gain and direction, or none."""
        if name in self.names:
            return (name,)
        base = name.removesuffix(".weight")
        pair = (base + _GAIN, base + _DIRECTION)
        return pair if base != name and all(part in self.names for part in pair) else ()

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor; raises CheckpointError if it does not exist."""
        return self._stored_shape(self._parts_of(name)[-1])

    def pieces(self, name: str) -> Iterator[Array]:
        """Read one tensor in pieces; only a folded tensor is held in memory whole.

        Yields:
            Flat pieces of its values in order, at least one: any stored float as float32, else the stored dtype. The
            caller owns a piece until the next one.

        Raises:
            CheckpointError: there is no such tensor, its file cannot be read, or a value is NaN or infinite.
        """
        parts = self._parts_of(name)
        if len(parts) == 2:
            yield self._folded(*parts)
            return
        for piece in self._pieces(name):
            if piece.dtype.kind == "f" and not np.isfinite(piece).all():
                raise CheckpointError(f"{self.where(name)}: holds a value that is not finite in float32")
            yield piece

    def array(self, name: str) -> Array:
        """Read one whole tensor; dtype and errors as for `pieces`. The caller owns the array."""
        out: Array | None = None
        start = 0
        for piece in self.pieces(name):
            if out is None:
                out = np.empty(math.prod(self.shape(name)), piece.dtype)
            out[start : start + piece.size] = piece
            start += piece.size
        if out is None:
            raise CheckpointError(f"{self.where(name)}: expected values, got none")
        return out.reshape(self.shape(name))

    def _folded(self, gain_name: str, direction_name: str) -> Array:
        gain, direction = self.array(gain_name), self.array(direction_name)
        flat = direction.reshape(direction.shape[0], -1)
        norm = np.sqrt(np.einsum("ij,ij->i", flat, flat, dtype=np.float64))
        if gain.size != len(flat) or not norm.all():
            raise CheckpointError(f"{self.where(direction_name)}: weight norm cannot be folded")
        flat *= (gain.reshape(-1) / norm).astype(np.float32)[:, None]
        return flat.reshape(-1)

    def _parts_of(self, name: str) -> tuple[str, ...]:
        parts = self.parts(name)
        if not parts:
            raise CheckpointError(f"{self}: no tensor {name}")
        return parts


@dataclass(frozen=True)
class _Entry:
    """Location of one tensor in a safetensors file."""

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
        """Open a checkpoint and check its headers; tensors are read on demand.

        Args:
            path: a `.safetensors` file, an index, or a folder with `model.safetensors`, one
                `*.safetensors.index.json`, or a single `*.safetensors`.

        Raises:
            CheckpointError: no such file, or a file is damaged.
        """
        source = _find(Path(path))
        entries: dict[str, _Entry] = {}
        for file in _shards(source) if source.suffix == ".json" else [source]:
            for entry in _read_header(file):
                name = canonical(entry.stored_name)
                if name in entries:
                    raise CheckpointError(f"{file}: tensor {name} is also in {entries[name].path}")
                entries[name] = entry
        if source.suffix == ".json":
            absent = [name for name in _weight_map(source) if canonical(name) not in entries]
            if absent:
                raise CheckpointError(f"{source}: shards lack {listed(absent)}")
        return cls(source, entries)

    def __str__(self) -> str:
        """Path of the opened file or index."""
        return str(self._source)

    def where(self, name: str) -> str:
        """File and stored name."""
        entry = self._entries[name]
        return f"{entry.path}: {entry.stored_name}"

    @property
    def config(self) -> dict[str, Any]:
        """Read the `config.json` in the folder of the weights.

        Raises:
            CheckpointError: the file is missing or not a JSON object.
        """
        return _read_json(self._source.parent / "config.json")

    def sha256(self) -> dict[str, str]:
        """Hash of each weights file by name; reads the files completely."""
        hashes = {}
        for file in sorted({entry.path for entry in self._entries.values()}):
            digest = hashlib.sha256()
            with _opened(file) as stream:
                while block := stream.read(PIECE):
                    digest.update(block)
            hashes[file.name] = digest.hexdigest()
        return hashes

    def _stored_shape(self, name: str) -> tuple[int, ...]:
        return self._entries[name].shape

    def _pieces(self, name: str) -> Iterator[Array]:
        entry = self._entries[name]
        with _opened(entry.path) as stream:
            stream.seek(entry.offset)
            left = entry.count
            while True:
                raw = np.empty(min(left, PIECE), _DTYPES[entry.dtype])
                if stream.readinto(raw.view(np.uint8).data) != raw.nbytes:
                    raise CheckpointError(f"{self.where(name)}: the file ends inside the tensor")
                yield _widened(raw, entry.dtype)
                left -= raw.size
                if not left:
                    return


def _widened(raw: Array, dtype: str) -> Array:
    """Convert stored floats to float32; other dtypes are unchanged."""
    if dtype == "BF16":  # the upper half of a float32
        bits: Array = np.left_shift(raw, 16, dtype=np.uint32).view(np.float32)
        return bits
    if dtype not in _FLOATS:
        return raw
    with np.errstate(over="ignore"):  # overflow gives infinity, which `pieces` reports
        return raw.astype(np.float32, copy=False)


def listed(names: list[str]) -> str:
    """Join the first names and the number of the others, for messages."""
    rest = len(names) - _LISTED
    return ", ".join(sorted(names)[:_LISTED]) + (f" and {rest} more" if rest > 0 else "")


def _opened(path: Path) -> io.BufferedReader:
    try:
        return path.open("rb")
    except (OSError, ValueError) as error:  # ValueError: an impossible file name
        reason = error.strerror if isinstance(error, OSError) else error
        raise CheckpointError(f"{path}: cannot be opened: {reason}") from error


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
        except (ValueError, RecursionError) as error:
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
    """Yield the entries of a safetensors file: an 8-byte length, a JSON header, then the tensors."""
    with _opened(path) as stream:
        size = path.stat().st_size
        prefix = stream.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else size
        if length > min(size - 8, _MAX_HEADER_BYTES):
            raise CheckpointError(f"{path}: truncated, or not a safetensors file")
        try:
            header = json.loads(stream.read(length))
        except (ValueError, RecursionError) as error:
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
    except (TypeError, KeyError, ValueError, OverflowError) as error:  # OverflowError: JSON's Infinity
        raise CheckpointError(f"{path}: {name}: damaged header entry") from error
    if dtype not in _DTYPES:
        raise CheckpointError(f"{path}: {name}: dtype {dtype} is not supported")
    if min(shape, default=0) < 0 or start < 0 or end - start != math.prod(shape) * _DTYPES[dtype].itemsize:
        raise CheckpointError(f"{path}: {name}: {end - start} bytes do not hold {dtype} {list(shape)}")
    if base + end > size:
        raise CheckpointError(f"{path}: truncated: {name} ends at byte {base + end}, the file at {size}")
    return _Entry(path, name, dtype, shape, base + start)


def canonical(name: str) -> str:
    """Convert weight norm's names to torch's spelling."""
    for old, new in ((".weight_g", _GAIN), (".weight_v", _DIRECTION)):
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name
