"""Is PyTorch's Muon as fast as the one in `train.frame.muon`, and do both go the same way?

    python -m benchmarks.muon

Processor seconds of one orthogonalisation on one thread, the least of five, and how far the results are apart.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from train.frame.muon import orthogonalise

SHAPES = ((128, 128), (320, 128), (128, 640), (672, 336))
"""Of the demo preset's language model, decoder and flow."""


def main() -> None:
    """Print a line for each shape."""
    torch.set_num_threads(1)
    for shape in SHAPES:
        gradient = torch.randn(shape)
        ours, theirs = orthogonalise(gradient), _torch_muon(gradient)
        apart = float((ours - theirs).norm() / ours.norm())
        one, other = _least(partial(orthogonalise, gradient)), _least(partial(_torch_muon, gradient))
        print(f"{shape}: {one * 1e3:.2f} ms, torch {other * 1e3:.2f} ms, {other / one:.1f} times; apart {apart:.4f}")


def _torch_muon(gradient: Tensor) -> Tensor:
    """Do PyTorch's step of rate 1 from a weight of zero."""
    weight = nn.Parameter(torch.zeros_like(gradient))
    weight.grad = gradient
    torch.optim.Muon([weight], 1.0, weight_decay=0.0, momentum=0.0, ns_steps=4).step()  # type: ignore[no-untyped-call]
    tall = max(1.0, gradient.shape[0] / gradient.shape[1]) ** 0.5
    moved: Tensor = -weight.detach() / tall
    return moved


def _least(call: Callable[[], object]) -> float:
    call()
    taken = []
    for _ in range(5):
        start = time.process_time()
        call()
        taken.append(time.process_time() - start)
    return min(taken)


if __name__ == "__main__":
    main()
