"""Pickled checkpoints (.pt, .pth, .th, .bin), read without executing code from them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from heartvoice.checkpoints.safetensors_reader import PIECE, Array, TensorSource, canonical, listed
from heartvoice.errors import CheckpointError


def load_pickle(path: Path, *, globals_: tuple[type, ...] = ()) -> Any:
    """Load a torch file with torch's restricted unpickler.

    Args:
        path: the file.
        globals_: classes that the file may name, in addition to tensors and plain containers.

    Raises:
        CheckpointError: the file is missing, damaged, or names another class.
    """
    import torch

    try:
        with torch.serialization.safe_globals(list(globals_)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except Exception as error:  # torch raises a dozen unrelated classes for damaged files
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"{path}: not a readable checkpoint: {reason}") from error


class TorchFile(TensorSource):
    """Tensors of a pickled checkpoint, held in memory as stored."""

    def __init__(self, path: Path, tensors: Mapping[str, Any]) -> None:
        """Take a flat mapping from names to torch tensors; `TorchFile.open` reads one from a file."""
        self._path = path
        self._stored = {canonical(name): name for name in tensors}
        self._tensors = {canonical(name): tensor for name, tensor in tensors.items()}
        self.names = frozenset(self._tensors)

    @classmethod
    def open(
        cls,
        path: Path,
        pick: Callable[[Any], Any] = lambda value: value,
        *,
        rename: Callable[[str], str | None] = lambda name: name.removeprefix("module."),
        globals_: tuple[type, ...] = (),
    ) -> TorchFile:
        """Open a file.

        Args:
            path: the file.
            pick: returns the flat state dict of the file's content; it may raise LookupError, TypeError or ValueError.
            rename: maps stored names to the network's; None drops a tensor.
            globals_: see `load_pickle`.

        Raises:
            CheckpointError: the file is missing or damaged, or its content is not as expected.
        """
        import torch

        value = load_pickle(path, globals_=globals_)
        try:
            state = pick(value)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(f"{path}: does not hold what is expected: {error!r}") from error
        if not isinstance(state, Mapping):
            raise CheckpointError(f"{path}: expected a state dict, got {type(state).__name__}")
        wrong = [str(name) for name, tensor in state.items() if not isinstance(tensor, torch.Tensor)]
        if wrong:
            raise CheckpointError(f"{path}: not tensors: {listed(wrong)}")
        renamed = {new: tensor for name, tensor in state.items() if (new := rename(str(name))) is not None}
        return cls(path, renamed)

    def __str__(self) -> str:
        """Path of the file."""
        return str(self._path)

    def where(self, name: str) -> str:
        """File and stored name."""
        return f"{self._path}: {self._stored.get(name, name)}"

    def sha256(self) -> dict[str, str]:
        """Hash of the file by its name."""
        digest = hashlib.sha256()
        with self._path.open("rb") as stream:
            while block := stream.read(PIECE):
                digest.update(block)
        return {self._path.name: digest.hexdigest()}

    def _stored_shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensors[name].shape)

    def _read(self, name: str) -> Array:
        tensor = self._tensors[name]
        array: Array = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
        return np.array(array)
