"""Muon: orthogonalised momentum for matrices and convolutions, in steps relative to the weight's norm.

`torch.optim.Muon` is not used: it orthogonalises in bfloat16 only, which takes 10 to 23 times as long as float32 on
processors without bfloat16 (`python -m benchmarks.muon`), takes matrices only, and its steps are absolute.

Source: Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

_A, _B, _C = 3.4445, -4.7750, 2.0315
"""The quintic's coefficients: steepest at zero, singular values end between 0.7 and 1.2."""
_ROUNDS = 4
_MOMENTUM = 0.9
_SMALLEST = 1e-9


class Muon(torch.optim.Optimizer):
    """Muon on parameters of at least two axes; all axes but the first are one."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float) -> None:
        """Take parameters and rate.

        Args:
            params: each with at least two axes.
            lr: Frobenius norm of a step over the norm of the weight, for matrices that are not tall.

        Raises:
            ValueError: a parameter has fewer than two axes.
        """
        super().__init__(params, {"lr": lr})
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.ndim < 2:
                    raise ValueError(f"Muon: expected at least two axes, got shape {list(parameter.shape)}")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        if closure is not None:
            raise ValueError("Muon: takes no closure")
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                momentum = state["momentum"].lerp_(parameter.grad, 1 - _MOMENTUM)
                ahead = parameter.grad.lerp(momentum, _MOMENTUM).flatten(1)
                direction = orthogonalise(ahead.float())
                rows, columns = direction.shape
                tall = max(1.0, rows / columns) ** 0.5
                scale = parameter.norm() * (tall / min(rows, columns) ** 0.5)
                parameter.sub_((direction * (scale * group["lr"])).view_as(parameter))


def orthogonalise(matrix: Tensor) -> Tensor:
    """Bring all singular values of a float32 matrix near 1 by Newton-Schulz rounds; its shape stays."""
    tall = matrix.shape[0] > matrix.shape[1]
    if tall:
        matrix = matrix.T
    matrix = matrix / (matrix.norm() + _SMALLEST)
    for _ in range(_ROUNDS):
        gram = matrix @ matrix.T
        matrix = torch.addmm(matrix, torch.addmm(gram, gram, gram, beta=_B, alpha=_C), matrix, beta=_A)
    return matrix.T if tall else matrix
