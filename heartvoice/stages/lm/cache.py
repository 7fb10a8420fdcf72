"""A packed cache of many songs' keys and values, for a graph that takes them as plain inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from heartvoice.arrays import Array
from heartvoice.config.presets import TransformerConfig
from heartvoice.errors import EngineError

WIDTH_BLOCK = 64
"""The cache's width is a multiple of this. onnxruntime's softmax and products give a row the same bits for every width
that is a multiple of 16 (measured with AVX-512; docs/decisions/0004-continuous-batching.md)."""

Floats = NDArray[np.float32]


def round_up(count: int, block: int) -> int:
    """The next multiple of `block`."""
    return -(-count // block) * block


def cache_bytes(sizes: TransformerConfig, *, rows: int, positions: int) -> int:
    """Bytes of float32 keys and values of all layers."""
    values = 2 * sizes.num_layers * sizes.num_kv_heads * sizes.head_dim
    return rows * round_up(positions, WIDTH_BLOCK) * values * np.dtype(np.float32).itemsize


class RowCache:
    """Rows of keys and values, as wide as the longest of them.

    A graph's inputs must be contiguous. When a row is removed, the rows behind it move up, and when the width changes,
    all rows move: a copy of the cache every `WIDTH_BLOCK` frames, about 1 % of their time. Values behind a row's
    length are finite, because their weight is 0, and 0 times NaN would be NaN.
    """

    def __init__(self, sizes: TransformerConfig, n_bytes: int) -> None:
        """Reserve `n_bytes`. The system allocates memory when it is first written."""
        self._heads, self._head_dim = sizes.num_kv_heads, sizes.head_dim
        names = [f"{kind}_past_{layer}" for layer in range(sizes.num_layers) for kind in "kv"]
        capacity = n_bytes // (len(names) * np.dtype(np.float32).itemsize)
        self._memory = {name: np.zeros(capacity, np.float32) for name in names}
        self._new = {name: name.replace("past", "new") for name in names}
        self._width = 0
        self.lengths: NDArray[np.int64] = np.zeros(0, np.int64)
        """Cached positions of each row."""
        self.arrays: dict[str, Array] = self.empty(0)
        """The graph's inputs: float32 [rows, Hkv, width, head_dim] for each layer's keys and values."""

    @property
    def new_names(self) -> Iterable[str]:
        """The graph's outputs that hold the new positions."""
        return self._new.values()

    def empty(self, rows: int) -> dict[str, Array]:
        """Inputs of rows without a past."""
        return {name: np.empty((rows, self._heads, 0, self._head_dim), np.float32) for name in self._memory}

    def append_rows(self, outputs: Mapping[str, Array], length: int) -> None:
        """Append a prompt's rows: the first `length` of their new positions."""
        n_old = len(self.lengths)
        n_new = len(outputs[next(iter(self.new_names))])
        self.lengths = np.append(self.lengths, np.full(n_new, length, np.int64))
        self._arrange(np.arange(n_old))
        for name, past in self.arrays.items():
            past[n_old:, :, :length] = outputs[self._new[name]][:, :, :length]

    def append_position(self, outputs: Mapping[str, Array]) -> None:
        """Append one new position to every row."""
        rows, positions = np.arange(len(self.lengths)), self.lengths
        self.lengths = self.lengths + 1  # a new array: the old one may still be the graph's input
        self._arrange(rows)
        for name, past in self.arrays.items():
            past[rows, :, positions] = outputs[self._new[name]][:, :, 0]

    def remove_rows(self, first: int, count: int) -> None:
        """Remove rows; the rows behind them move up."""
        kept = np.delete(np.arange(len(self.lengths)), np.s_[first : first + count])
        self.lengths = self.lengths[kept]
        self._arrange(kept)

    def _arrange(self, kept: NDArray[np.int64]) -> None:
        """Lay out the rows for `lengths`: first the rows `kept`, then new ones, which are zero."""
        n_rows, width = len(self.lengths), round_up(int(self.lengths.max(initial=0)), WIDTH_BLOCK)
        n_before, shared = len(next(iter(self.arrays.values()))), min(width, self._width)
        if (n_rows, width) == (n_before, self._width):
            return
        moves = [(source, target) for target, source in enumerate(kept) if width != self._width or source != target]
        if width > self._width:
            moves.reverse()  # rows move towards the end of the memory: the last one moves first
        for name, memory in self._memory.items():
            before = self.arrays[name]
            n_values = n_rows * self._heads * width * self._head_dim
            if n_values > len(memory):
                raise EngineError(
                    f"heartmula: cache: expected at most {len(memory)} values within the limit, got {n_values}"
                )
            rows = memory[:n_values].reshape(n_rows, self._heads, width, self._head_dim)
            for source, target in moves:
                rows[target, :, :shared] = before[source, :, :shared]  # numpy sees that they overlap
            rows[: len(kept), :, shared:] = 0
            rows[len(kept) :] = 0
            self.arrays[name] = rows
        self._width = width
