"""Gradients averaged over processes of one machine, by gloo."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.distributed as dist
from torch import Tensor, nn

from train.frame.errors import TrainingError

_WAIT = timedelta(minutes=10)
"""Longer than any step or check: who is silent for so long is gone."""


class Averaging:
    """One of the processes of a training; with a single process nothing is exchanged."""

    def __init__(self, rank: int = 0, processes: int = 1) -> None:
        self.rank, self.processes = rank, processes

    def average(self, network: nn.Module, stop: bool) -> bool:
        """Replace every gradient by the mean of all processes.

        A parameter that has a gradient in this process must have one in all of them.

        Args:
            network: whose gradients these are.
            stop: whether this process wants the step to be the last one.

        Returns:
            Whether any process wants that, so that all of them end together.

        Raises:
            TrainingError: another process is gone.
        """
        if self.processes == 1:
            return stop
        gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        device = gradients[0].device
        flat = torch.cat([gradient.flatten() for gradient in gradients] + [torch.tensor([float(stop)], device=device)])
        flat = self._sum(flat.cpu()).to(device)
        start = 0
        for gradient in gradients:
            mean = flat[start : start + gradient.numel()] / self.processes
            gradient.copy_(mean.view_as(gradient))
            start += gradient.numel()
        return bool(flat[-1] > 0)

    @staticmethod
    def _sum(flat: Tensor) -> Tensor:
        try:
            dist.all_reduce(flat)
        except RuntimeError as error:
            raise TrainingError(
                f"another process of the training is gone ({error}); run the same command again"
            ) from error
        return flat


@contextmanager
def started(processes: int, others: Callable[[Averaging], object]) -> Iterator[Averaging]:
    """Be the first of some processes; the others run `others` until the block ends.

    Args:
        processes: at least 1.
        others: picklable; called in each other process with its place.

    Raises:
        TrainingError: another process has failed.
    """
    if processes == 1:
        yield Averaging()
        return
    context = multiprocessing.get_context("spawn")
    with TemporaryDirectory(prefix="heartvoice-train-") as folder:
        store = Path(folder) / "store"
        children = [
            context.Process(target=_child, args=(store, Averaging(rank, processes), others), daemon=True)
            for rank in range(1, processes)
        ]
        for child in children:
            child.start()
        try:
            _join(store, 0, processes)
            yield Averaging(0, processes)
            for child in children:
                child.join(_WAIT.total_seconds())
        finally:
            if dist.is_initialized():
                dist.destroy_process_group()
            for child in children:
                child.kill()
                child.join()


def _child(store: Path, place: Averaging, others: Callable[[Averaging], object]) -> None:
    # The first process decides when to stop, and tells the others.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    _join(store, place.rank, place.processes)
    try:
        others(place)
    finally:
        dist.destroy_process_group()


def _join(store: Path, rank: int, processes: int) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # all are here; the machine's name may lead elsewhere
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=processes, timeout=_WAIT)
