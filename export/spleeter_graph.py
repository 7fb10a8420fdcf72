"""Builds Spleeter's ONNX graph: the U-nets of all sources between STFT and masks.

Contract: `contracts.SPLEETER`; the PyTorch twin is `heartvoice.models.spleeter`. Norms are a product and a sum with
the running statistics folded in. The networks are not joined into grouped convolutions, which onnxruntime runs slower.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np

from heartvoice.checkpoints.spleeter_names import KERNEL, LAST_KERNEL, up_input_width, up_widths
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
        x = skips.pop()
        for level, width in enumerate(up):
            if level:
                x = b.op("Concat", skips.pop(), x, axis=1)
            x = self._norm(
                f"up_norm.{level}", self._up(f"up.{level}", x, up_input_width(self.sizes, level), width), width
            )
        return self._conv("last", x, (2, 1, LAST_KERNEL, LAST_KERNEL), dilations=[2, 2], pads=[3, 3, 3, 3])

    def _conv(self, name: str, x: str, shape: tuple[int, ...], *, kind: str = "Conv", **attributes: Any) -> str:
        width = shape[1] if kind == "ConvTranspose" else shape[0]
        weight = self._weight(f"{name}.weight", shape, lambda: self._tensor(f"{name}.weight"))
        bias = self._weight(f"{name}.bias", (width,), lambda: self._tensor(f"{name}.bias"))
        return self.b.op(kind, x, weight, bias, kernel_shape=list(shape[2:]), **attributes)

    def _up(self, name: str, x: str, width_in: int, width: int) -> str:
        """Add a transposed convolution of stride 2 and its activation.

        It is a convolution for each of the four places that a sample becomes, laid side by side: onnxruntime runs
        these a tenth faster. Of one channel it does not.
        """
        b, activation = self.b, "Elu" if self.sizes.elu else "Relu"
        if width == 1:
            shape = (width_in, width, KERNEL, KERNEL)
            return b.op(activation, self._conv(name, x, shape, kind="ConvTranspose", strides=[2, 2], pads=_SAME))
        bias = self._weight(f"{name}.bias", (width,), lambda: self._tensor(f"{name}.bias"))
        places = []
        for rows, columns in product(_TAPS, _TAPS):

            def make(rows: Taps = rows, columns: Taps = columns) -> Array:
                weight = self._tensor(f"{name}.weight").swapaxes(0, 1)
                return np.ascontiguousarray(weight[:, :, rows][..., columns])

            kernel = [len(rows), len(columns)]
            weight = self._weight(f"{name}.weight.{kernel[0]}x{kernel[1]}", (width, width_in, *kernel), make)
            pads = [1, 1, kernel[0] - 2, kernel[1] - 2]
            places.append(b.op(activation, b.op("Conv", x, weight, bias, kernel_shape=kernel, pads=pads)))
        return b.op("DepthToSpace", b.op("Concat", *places, axis=1), blocksize=2)

    def _norm(self, name: str, x: str, width: int) -> str:
        def gain() -> Array:
            variance = self._tensor(f"{name}.running_var").astype(np.float64)
            scaled: Array = self._tensor(f"{name}.weight") / np.sqrt(variance + NORM_EPS)
            return scaled

        def shift() -> Array:
            shifted: Array = self._tensor(f"{name}.bias") - self._tensor(f"{name}.running_mean") * gain()
            return shifted

        shape = (width, 1, 1)
        with self.b.fp32_region("norm"):
            scaled = self.b.op("Mul", x, self._weight(f"{name}.gain", shape, lambda: gain().reshape(shape)))
            return self.b.op("Add", scaled, self._weight(f"{name}.shift", shape, lambda: shift().reshape(shape)))

    def _tensor(self, name: str) -> Array:
        return self.source.array(f"{self.prefix}.{name}")

    def _weight(self, name: str, shape: tuple[int, ...], make: Callable[[], Array]) -> str:
        return self.b.weight(f"{self.prefix}.{name}", shape, make)
