"""What a network brings to be trained: its parameters' rates, batches, loss, held-out numbers and files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor, nn


@dataclass(frozen=True)
class Group:
    """Parameters that move by one rule."""

    parameters: Sequence[nn.Parameter]
    rule: Literal["muon", "adam"]
    rate: float
    """The plateau's: relative to the weight's norm for Muon."""
    betas: tuple[float, float] = (0.9, 0.98)
    """Adam's."""
    weight_decay: float = 0.0
    """Adam's."""


@dataclass(frozen=True)
class Moment:
    """A place in a training."""

    step: int
    total: int
    rank: int = 0
    """Of the process; each composes its own batch."""

    @property
    def progress(self) -> float:
        """Share of the steps that are done, in [0, 1)."""
        return self.step / self.total


class Task(ABC):
    """A network and how it is trained.

    Everything random in `compose` and `loss` comes from the generator given and from torch's global one. Both are
    seeded anew for each step, so that a training that was interrupted goes on exactly as it would have.
    """

    name: str
    network: nn.Module
    """All that is trained; its `state_dict` is saved. An `nn.ModuleDict` joins several networks."""
    clip: float = 1.0
    """Largest norm of the whole gradient."""

    @property
    @abstractmethod
    def recipe(self) -> Mapping[str, Any]:
        """What makes two trainings the same, as JSON values: sizes, data, rates. A state of another is refused."""

    @abstractmethod
    def groups(self) -> Sequence[Group]:
        """All parameters by rule. A parameter without a gradient rests."""

    @abstractmethod
    def compose(self, moment: Moment, rng: np.random.Generator) -> Any:
        """Compose a batch of tensors in CPU memory. Runs in worker processes, ahead of the training."""

    @abstractmethod
    def loss(self, batch: Any, moment: Moment) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """Return the scalar to minimise, and its parts by name for the log; the batch is on the network's device."""

    @abstractmethod
    def check(self) -> Mapping[str, float]:
        """Measure the network on held-out examples, the same ones each time."""

    @abstractmethod
    def write(self, folder: Path) -> Sequence[Path]:
        """Write the weights as the checkpoint's files, and return these."""
