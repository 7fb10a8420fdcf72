"""Builds Spleeter's ONNX graph: the U-nets of all sources between STFT and masks.

Contract: `contracts.SPLEETER`; the PyTorch twin is `heartvoice.models.spleeter`. The networks are not joined into
grouped convolutions, which onnxruntime runs slower.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from heartvoice.checkpoints.spleeter_names import KERNEL, LAST_KERNEL, up_widths
from heartvoice.config.presets import SpleeterConfig
from heartvoice.contracts.models import SPLEETER
from heartvoice.export.graph_builder import Array, Graph, GraphBuilder, pinned
from heartvoice.export.layout import BATCH, Precision, separator_axes
from heartvoice.models.load import TensorSource
from heartvoice.models.spleeter import LEAK, NORM_EPS, check_sizes

_SAME = [1, 1, 2, 2]
"""TensorFlow's "same" padding of stride 2 and five taps; transposed convolutions are cropped by it."""
Taps = tuple[int, ...]
_TAPS: tuple[Taps, Taps] = ((3, 1), (4, 2, 0))
"""Taps of a transposed convolution that reach an even and an odd place, from the sample before to the one after."""


def build_spleeter(sizes: SpleeterConfig, source: TensorSource, precision: Precision = "fp32") -> Graph:
    """Build the graph of `contracts.SPLEETER`: magnitudes [B, 2, T, F] to estimates [B, S, 2, T, F].

    It is in single precision at every `precision`: magnitudes reach thousands, and their convolutions more.

    Raises:
        CheckpointError: there are no networks of these sizes.
    """
    check_sizes(sizes)
    b, axes = GraphBuilder(SPLEETER.name, precision), separator_axes(sizes)
    magnitudes = b.input(pinned(SPLEETER.inputs[0], axes), batch=BATCH)
    estimates = b.output(pinned(SPLEETER.outputs[0], axes), batch=BATCH)
    one = b.constant([1])
    found = [_UNet(b, sizes, source, f"networks.{index}").run(magnitudes) for index in range(len(sizes.sources))]
    logits = b.op("Concat", *(b.op("Unsqueeze", each, one) for each in found), axis=1)
    share = b.softmax(logits, 1) if sizes.softmax else b.op("Sigmoid", logits)
    b.op("Mul", share, b.op("Unsqueeze", magnitudes, one), out=estimates)
    return b.graph


class _UNet:
    """One source's network."""

    def __init__(self, b: GraphBuilder, sizes: SpleeterConfig, source: TensorSource, prefix: str) -> None:
        self.b, self.sizes, self.source, self.prefix = b, sizes, source, prefix

    def run(self, x: str) -> str:
        """Map magnitudes to logits [B, 2, T, F]."""
        b, down, up = self.b, self.sizes.filters, up_widths(self.sizes)
        skips: list[str] = []
        for level, width in enumerate(down):
            if level:
                normed = self._norm(f"down_norm.{level - 1}", skips[-1], down[level - 1])
                x = b.op("Elu", normed) if self.sizes.elu else b.op("LeakyRelu", normed, alpha=LEAK)
            shape = (width, (2, *down)[level], KERNEL, KERNEL)
            skips.append(self._conv(f"down.{level}", x, shape, strides=[2, 2], pads=_SAME))
        parts, seen = [skips.pop()], [down[-1]]
        for level, width in enumerate(up):
            if level:
                parts, seen = [skips.pop(), x], [down[len(skips)], up[level - 1]]
            x = self._norm(f"up_norm.{level}", self._up(f"up.{level}", parts, seen, width), width)
        return self._conv("last", x, (2, 1, LAST_KERNEL, LAST_KERNEL), dilations=[2, 2], pads=[3, 3, 3, 3])

    def _conv(self, name: str, x: str, shape: tuple[int, ...], *, kind: str = "Conv", **attributes: Any) -> str:
        width = shape[1] if kind == "ConvTranspose" else shape[0]
        weight = self._weight(f"{name}.weight", shape, lambda: self._tensor(f"{name}.weight"))
        bias = self._weight(f"{name}.bias", (width,), lambda: self._tensor(f"{name}.bias"))
        return self.b.op(kind, x, weight, bias, kernel_shape=list(shape[2:]), **attributes)

    def _up(self, name: str, parts: list[str], widths: list[int], width: int) -> str:
        """Add a transposed convolution of stride 2 over all channels of `parts`, and its activation.

        It is a convolution for each of the four places that a sample becomes, laid side by side, and for each part,
        added up: onnxruntime runs these a sixth faster. Of one channel it does not.
        """
        b, activation = self.b, "Elu" if self.sizes.elu else "Relu"
        if width == 1:
            x = b.op("Concat", *parts, axis=1) if len(parts) > 1 else parts[0]
            shape = (sum(widths), width, KERNEL, KERNEL)
            return b.op(activation, self._conv(name, x, shape, kind="ConvTranspose", strides=[2, 2], pads=_SAME))
        bias = [self._weight(f"{name}.bias", (width,), lambda: self._tensor(f"{name}.bias"))]
        places = []
        for rows, columns in product(_TAPS, _TAPS):
            kernel, added, first = [len(rows), len(columns)], list[str](), 0
            pads = [1, 1, kernel[0] - 2, kernel[1] - 2]
            for part, seen in zip(parts, widths, strict=True):

                def make(
                    first: int = first, last: int = first + seen, taps: tuple[Taps, Taps] = (rows, columns)
                ) -> Array:
                    weight = self._tensor(f"{name}.weight")[first:last].swapaxes(0, 1)
                    return np.ascontiguousarray(weight[:, :, taps[0]][..., taps[1]])

                label = f"{name}.weight.{first}.{kernel[0]}x{kernel[1]}"
                weight = self._weight(label, (width, seen, *kernel), make)
                added.append(b.op("Conv", part, weight, *([] if first else bias), kernel_shape=kernel, pads=pads))
                first += seen
            places.append(b.op(activation, b.op("Add", *added) if len(added) > 1 else added[0]))
        return b.op("DepthToSpace", b.op("Concat", *places, axis=1), blocksize=2)

    def _norm(self, name: str, x: str, width: int) -> str:
        values = [
            self._weight(f"{name}.{value}", (width,), partial(self._tensor, f"{name}.{value}"))
            for value in ("weight", "bias", "running_mean", "running_var")
        ]
        with self.b.fp32_region("norm"):
            return self.b.op("BatchNormalization", x, *values, epsilon=NORM_EPS)

    def _tensor(self, name: str) -> Array:
        return self.source.array(f"{self.prefix}.{name}")

    def _weight(self, name: str, shape: tuple[int, ...], make: Callable[[], Array]) -> str:
        return self.b.weight(f"{self.prefix}.{name}", shape, make)
