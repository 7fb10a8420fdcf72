"""Spleeter's weights: the published TensorFlow checkpoint, or tensors of its names, for this project's networks.

The checkpoint's data file holds its tensors one after another, sorted by name, as little-endian float32 in C order. So
names and shapes, which follow from the networks' sizes, say where each tensor is.

Source: Spleeter 2.4.2 (MIT).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from heartvoice.checkpoints.random_init import InitFn, InitSpec
from heartvoice.checkpoints.safetensors_reader import PIECE, Array, TensorSource
from heartvoice.checkpoints.spleeter_names import TensorName, stored_tensors, tensor_names
from heartvoice.config.presets import SpleeterConfig
from heartvoice.errors import CheckpointError

_STEP = "global_step"
_STEP_BYTES = 8
"""The training step, an int64 among the tensors, which nobody reads."""


class DataFile(TensorSource):
    """A TensorFlow checkpoint's data file, `model.data-00000-of-00001`, with the names and shapes that it must hold."""

    def __init__(self, path: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Find each tensor's place.

        Args:
            path: of the file.
            shapes: of all float32 tensors, by name.

        Raises:
            CheckpointError: the file is missing, or has another size than these tensors.
        """
        self._path, self._shapes = path, dict(shapes)
        self.names = frozenset(shapes)
        self._offsets: dict[str, int] = {}
        end = 0
        for name in sorted((*shapes, _STEP)):
            self._offsets[name] = end
            end += _STEP_BYTES if name == _STEP else 4 * math.prod(shapes[name])
        try:
            size = path.stat().st_size
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be opened: {error.strerror}") from error
        if size != end:
            raise CheckpointError(f"{path}: expected the {end} bytes of {len(shapes)} tensors, got {size}")

    def __str__(self) -> str:
        """Path of the file."""
        return str(self._path)

    def where(self, name: str) -> str:
        """File and tensor."""
        return f"{self._path}: {name}"

    def sha256(self) -> dict[str, str]:
        """Hash of the file by its name."""
        with self._path.open("rb") as stream:
            return {self._path.name: hashlib.file_digest(stream, "sha256").hexdigest()}

    def _stored_shape(self, name: str) -> tuple[int, ...]:
        return self._shapes[name]

    def _pieces(self, name: str) -> Iterator[Array]:
        left = math.prod(self._shapes[name])
        with self._path.open("rb") as stream:
            stream.seek(self._offsets[name])
            while left:
                piece = np.fromfile(stream, "<f4", min(left, PIECE))
                if not piece.size:
                    raise CheckpointError(f"{self.where(name)}: the file ends inside the tensor")
                left -= piece.size
                yield piece


class SpleeterTensors(TensorSource):
    """Tensors of TensorFlow's names and layouts, as this project's networks name and lay them out."""

    def __init__(self, source: TensorSource, sizes: SpleeterConfig) -> None:
        """Check names and shapes; no value is read.

        Args:
            source: of TensorFlow's names; it may hold the norm after the last convolution down, which nobody reads.
            sizes: of the networks.

        Raises:
            CheckpointError: a tensor is missing, unknown or has the wrong shape.
        """
        stored = stored_tensors(sizes)
        missing, unknown = stored.keys() - source.names, source.names - stored.keys() - {_STEP}
        if missing or unknown:
            what = "missing" if missing else "unknown"
            raise CheckpointError(f"{source}: {what} {', '.join(sorted(missing or unknown)[:8])}")
        for name, shape in stored.items():
            if source.shape(name) != shape:
                raise CheckpointError(
                    f"{source.where(name)}: expected shape {list(shape)}, got {list(source.shape(name))}"
                )
        self._source = source
        self._named: dict[str, TensorName] = {each.own: each for each in tensor_names(sizes)}
        self.names = frozenset(self._named)

    def __str__(self) -> str:
        """The source's name."""
        return str(self._source)

    def where(self, name: str) -> str:
        """File and stored name."""
        return self._source.where(self._named[name].stored)

    def sha256(self) -> dict[str, str]:
        """Hash of each file by its name."""
        return self._source.sha256()

    def _stored_shape(self, name: str) -> tuple[int, ...]:
        shape = self._source.shape(self._named[name].stored)
        return tuple(shape[axis] for axis in self._named[name].axes) if self._named[name].axes else shape

    def _read(self, name: str) -> Array:
        value, axes = self._source.array(self._named[name].stored), self._named[name].axes
        return np.ascontiguousarray(value.transpose(axes)) if axes else value


def open_spleeter(path: Path, sizes: SpleeterConfig) -> TensorSource:
    """Open a checkpoint's data file.

    Raises:
        CheckpointError: it is missing or has another size than the tensors of these networks.
    """
    return SpleeterTensors(DataFile(path, stored_tensors(sizes)), sizes)


def spleeter_init() -> InitFn:
    """Initial scales of random networks: activations of deviation near 1, and masks that differ."""

    def init(name: str, shape: tuple[int, ...]) -> InitSpec:
        if name.endswith("running_var"):
            return InitSpec(0.2, mean=1.0)
        if "_norm." in name:
            return InitSpec(0.1, mean=1.0 if name.endswith(".weight") else 0.0)
        if name.endswith(".bias"):
            return InitSpec(0.1)
        fan_in = shape[0] * shape[2] * shape[3] / 4 if ".up." in name else math.prod(shape[1:])
        return InitSpec(math.sqrt(2 / fan_in))

    return init
