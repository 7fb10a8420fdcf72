"""A training of a second: a small network that learns products of noise."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from train.frame.loop import Options
from train.frame.task import Group, Moment, Task
from train.frame.weights import write_checkpoint


class Fit(Task):
    """A small network that learns a product of noise, with dropout."""

    name = "fit"

    def __init__(
        self, width: int = 8, stop_at: int | None = None, poison: int | None = None, dropout: float = 0.1
    ) -> None:
        self.network = nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Dropout(dropout), nn.Linear(width, 1))
        self.width, self.stop_at, self.poison = width, stop_at, poison

    @property
    def recipe(self) -> Mapping[str, Any]:
        return {"width": self.width}

    def groups(self) -> Sequence[Group]:
        parameters = list(self.network.parameters())
        return [
            Group([p for p in parameters if p.ndim == 2], "muon", 0.02),
            Group([p for p in parameters if p.ndim == 1], "adam", 0.01),
        ]

    def compose(self, moment: Moment, rng: np.random.Generator) -> Any:
        x = rng.standard_normal((16, 4)).astype(np.float32)
        return {"x": torch.from_numpy(x), "y": torch.from_numpy(x[:, :1] * x[:, 1:2])}

    def loss(self, batch: Any, moment: Moment) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        if moment.step == self.stop_at:
            signal.raise_signal(signal.SIGTERM)
        error = (self.network(batch["x"]) - batch["y"]).square().mean()
        return error * (float("nan") if moment.step == self.poison else 1.0), {"error": error}

    def check(self) -> Mapping[str, float]:
        batch = self.compose(Moment(0, 1), np.random.default_rng(1))
        return {"error": float((self.network(batch["x"]) - batch["y"]).square().mean())}

    def write(self, folder: Path) -> Sequence[Path]:
        return write_checkpoint(folder, self.network.state_dict(), {})


def options_of(folder: Path, **changes: Any) -> Options:
    return replace(Options(folder, steps=10, log_steps=2, check_steps=4), **changes)
