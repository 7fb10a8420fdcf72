"""Both optimisers of a training as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from train.frame.muon import Muon
from train.frame.task import Group


class Optimisers:
    """Muon and AdamW over a task's groups, at rates that the schedule scales together."""

    def __init__(self, network: nn.Module, groups: Sequence[Group]) -> None:
        """Make the optimisers.

        Raises:
            ValueError: a parameter of the network is in no group, or in two.
        """
        _check_cover(network, groups)
        self._each: list[torch.optim.Optimizer] = []
        self._rates: list[float] = []
        for group in groups:
            self._each.append(_made(group))
            self._rates.append(group.rate)

    def step(self, factor: float) -> None:
        """Move the parameters at `factor` times the plateau's rates."""
        for optimiser, rate in zip(self._each, self._rates, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = rate * factor
            optimiser.step()

    def state_dict(self) -> list[dict[str, Any]]:
        """Return what `load_state_dict` takes."""
        return [optimiser.state_dict() for optimiser in self._each]

    def load_state_dict(self, states: Sequence[dict[str, Any]]) -> None:
        """Go on from a state of the same groups."""
        for optimiser, state in zip(self._each, states, strict=True):
            optimiser.load_state_dict(state)


def _made(group: Group) -> torch.optim.Optimizer:
    if group.rule == "muon":
        return Muon(group.parameters, group.rate)
    return torch.optim.AdamW(group.parameters, group.rate, betas=group.betas, weight_decay=group.weight_decay)


def _check_cover(network: nn.Module, groups: Sequence[Group]) -> None:
    grouped = [id(parameter) for group in groups for parameter in group.parameters]
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    if len(set(grouped)) != len(grouped):
        raise ValueError("groups: a parameter is in two groups")
    missing = [name for key, name in names.items() if key not in grouped]
    if missing:
        raise ValueError(f"groups: {missing[0]} and {len(missing) - 1} more parameters are in no group")
