"""Asynchronous work on a GPU: copies of inputs, recorded actions, copies of codes.

On a CPU the same calls copy and run at once. Only this file treats GPUs differently. That part follows PyTorch's
documentation and has not been run yet.

Source: PyTorch's notes on CUDA semantics, "CUDA Graphs" and "Use pinned memory buffers".
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from heartvoice.stages.lm.torch_network import FrameInputs

_WARM_UP = 2
"""Runs before a recording, in which libraries allocate their workspaces and choose kernels."""


class Recorder:
    """Records actions for cheap replay: as CUDA graphs with one memory pool on a GPU; elsewhere they just run."""

    def __init__(self, device: torch.device) -> None:
        """Allocate the memory pool of `device`."""
        self._device = device
        self._pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None

    def record(self, action: Callable[[], object]) -> Callable[[], object]:
        """Record an action that can be repeated, does not wait, and keeps its tensors in place.

        On a GPU the action runs a few times. Its allocations are valid until another recording is replayed.
        """
        if self._pool is None:
            return action
        current = torch.cuda.current_stream(self._device)
        side = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP):
                action()
        current.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # Other threads of the process may use the GPU at the same time.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            action()
        return graph.replay


class FrameBlock:
    """A frame's inputs in two memory blocks, so that two copies transfer them."""

    def __init__(self, rows: int, books: int, device: torch.device | str = "cpu", *, pinned: bool = False) -> None:
        """Allocate the blocks; `pinned` host memory lets a GPU read them asynchronously."""
        whole = torch.zeros(books + 7, rows, dtype=torch.int64, device=device, pin_memory=pinned)
        real = torch.zeros(books + 2, rows, device=device, pin_memory=pinned)
        self._blocks = whole, real
        self.inputs = FrameInputs(
            whole[:books].view(rows, books), real[:books].view(rows, books), *whole[books:], *real[books:]
        )

    def copy_from(self, other: FrameBlock) -> None:
        """Take another block's values over; the host does not wait."""
        for mine, theirs in zip(self._blocks, other._blocks, strict=True):
            mine.copy_(theirs, non_blocking=True)


class Return:
    """One frame's way back: its codes follow it to the host, where they can be waited for."""

    def __init__(self, rows: int, books: int, device: torch.device) -> None:
        """Allocate."""
        on_gpu = device.type == "cuda"
        self._codes = torch.zeros(rows, books, dtype=torch.int64, pin_memory=on_gpu)
        self._arrived = torch.cuda.Event(blocking=True) if on_gpu else None  # type: ignore[no-untyped-call]

    def send(self, codes: Tensor) -> None:
        """Queue a copy of int64 [R, K]; the host does not wait."""
        self._codes.copy_(codes, non_blocking=True)
        if self._arrived is not None:
            self._arrived.record()

    def wait(self) -> NDArray[np.int64]:
        """Wait for the codes; the caller owns the array."""
        if self._arrived is not None:
            self._arrived.synchronize()
        codes: NDArray[np.int64] = self._codes.numpy().copy()
        return codes
