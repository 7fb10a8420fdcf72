"""Names, shapes and layouts of Spleeter's tensors: TensorFlow's and this project's. No torch.

TensorFlow numbers the layers of each kind over all networks; the first of a kind has no number.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from heartvoice.config.presets import SpleeterConfig

KERNEL, LAST_KERNEL = 5, 4
_TO_CHANNELS_FIRST = (3, 2, 0, 1)
"""Of a kernel [height, width, in, out], and of a transposed one [height, width, out, in]."""
_NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}


@dataclass(frozen=True)
class TensorName:
    """One tensor under both names; `axes` reorder the stored axes, () keeps them."""

    own: str
    stored: str
    axes: tuple[int, ...] = ()


def up_widths(sizes: SpleeterConfig) -> tuple[int, ...]:
    """Return the output channels of the transposed convolutions."""
    return (*sizes.filters[-2::-1], 1)


def tensor_names(sizes: SpleeterConfig) -> Iterator[TensorName]:
    """Yield every tensor that inference reads."""
    depth = len(sizes.filters)
    for network in range(len(sizes.sources)):
        own = f"networks.{network}"
        for level in range(depth):
            yield from _convolution(f"{own}.down.{level}", "conv2d", network * (depth + 1) + level)
            yield from _convolution(f"{own}.up.{level}", "conv2d_transpose", network * depth + level)
            if level < depth - 1:
                yield from _norm(f"{own}.down_norm.{level}", 2 * network * depth + level)
            yield from _norm(f"{own}.up_norm.{level}", (2 * network + 1) * depth + level)
        yield from _convolution(f"{own}.last", "conv2d", network * (depth + 1) + depth)


def _convolution(own: str, kind: str, number: int) -> Iterator[TensorName]:
    yield TensorName(f"{own}.weight", f"{_numbered(kind, number)}/kernel", _TO_CHANNELS_FIRST)
    yield TensorName(f"{own}.bias", f"{_numbered(kind, number)}/bias")


def _norm(own: str, number: int) -> Iterator[TensorName]:
    for name, stored in _NORM.items():
        yield TensorName(f"{own}.{name}", f"{_numbered('batch_normalization', number)}/{stored}")


def _numbered(kind: str, number: int) -> str:
    return f"{kind}_{number}" if number else kind


def stored_tensors(sizes: SpleeterConfig) -> dict[str, tuple[int, ...]]:
    """Return every tensor of a checkpoint with its shape, the norms after the last convolution down included."""
    down, up, depth = sizes.filters, up_widths(sizes), len(sizes.filters)
    shapes: dict[str, tuple[int, ...]] = {}

    def convolution(kind: str, number: int, kernel: int, channels: tuple[int, int]) -> None:
        name = _numbered(kind, number)
        shapes[f"{name}/kernel"] = (kernel, kernel, *channels)
        shapes[f"{name}/bias"] = (channels[1] if kind == "conv2d" else channels[0],)

    def norm(number: int, width: int) -> None:
        for stored in _NORM.values():
            shapes[f"{_numbered('batch_normalization', number)}/{stored}"] = (width,)

    for network in range(len(sizes.sources)):
        for level in range(depth):
            convolution("conv2d", network * (depth + 1) + level, KERNEL, ((2, *down)[level], down[level]))
            width_in = up_input_width(sizes, level)
            convolution("conv2d_transpose", network * depth + level, KERNEL, (up[level], width_in))
            norm(2 * network * depth + level, down[level])
            norm((2 * network + 1) * depth + level, up[level])
        convolution("conv2d", network * (depth + 1) + depth, LAST_KERNEL, (1, 2))
    return shapes


def up_input_width(sizes: SpleeterConfig, level: int) -> int:
    """Return the input channels of a transposed convolution: its skip's and those of the one before it."""
    return sizes.filters[-1] if not level else sizes.filters[-1 - level] + up_widths(sizes)[level - 1]
