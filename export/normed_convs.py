"""Adds convolutions and BatchNorms of published weights to a graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from heartvoice.export.graph_builder import Array, GraphBuilder
from heartvoice.models.load import TensorSource

BATCH_NORM_EPS = 1e-5


class NormedConvs:
    """Convolutions and BatchNorms of one checkpoint by name, for one graph."""

    def __init__(self, b: GraphBuilder, source: TensorSource) -> None:
        self.b, self.source = b, source

    def conv(
        self,
        x: str,
        name: str,
        shape: tuple[int, ...],
        norm: str | None = None,
        *,
        bias: bool = False,
        **attributes: Any,
    ) -> str:
        """Add a convolution: with the BatchNorm `norm` folded into it, with a bias, or with neither.

        Args:
            x: [B, C, ...].
            name: of the layer; its weight is `name.weight`.
            shape: of the weight.
            norm: name of the BatchNorm that follows it.
            bias: whether the layer has one.
            attributes: of ONNX's Conv.
        """
        b, source = self.b, self.source

        def weight() -> Array:
            values = source.array(f"{name}.weight")
            return values if norm is None else values * self._scale(norm).reshape(-1, *[1] * (len(shape) - 1))

        kernel = b.weight(f"{name}.weight", shape, weight, half=True)
        attributes = {"kernel_shape": list(shape[2:]), **attributes}
        if norm is None and not bias:
            return b.conv(x, kernel, None, **attributes)
        make: Callable[[], Array] = (
            (lambda: source.array(f"{name}.bias")) if norm is None else (lambda: self._shift(norm))
        )
        if b.graph.precision == "fp32":
            return b.conv(x, kernel, b.weight(f"{name}.bias", shape[:1], make), **attributes)
        spread = (shape[0], *[1] * (len(shape) - 2))  # added in single precision, over all axes after the channels
        return b.op(
            "Add",
            b.conv(x, kernel, None, **attributes),
            b.weight(f"{name}.bias", spread, lambda: make().reshape(spread)),
        )

    def batch_norm(self, x: str, name: str, width: int) -> str:
        """Add a BatchNorm of [B, width, T] without a preceding convolution: one product and one sum."""
        b = self.b
        scale = b.weight(f"{name}.scale", (width, 1), lambda: self._scale(name).reshape(-1, 1))
        shift = b.weight(f"{name}.shift", (width, 1), lambda: self._shift(name).reshape(-1, 1))
        return b.op("Add", b.op("Mul", x, scale), shift)

    def _scale(self, norm: str) -> Array:
        """Return the scale of a BatchNorm, float64 [C]."""
        gain = self.source.array(f"{norm}.weight").astype(np.float64) if self.source.parts(f"{norm}.weight") else 1.0
        scale: Array = gain / np.sqrt(self.source.array(f"{norm}.running_var").astype(np.float64) + BATCH_NORM_EPS)
        return scale

    def _shift(self, norm: str) -> Array:
        """Return the offset of a BatchNorm, float64 [C]."""
        offset = self.source.array(f"{norm}.bias").astype(np.float64) if self.source.parts(f"{norm}.bias") else 0.0
        shift: Array = offset - self.source.array(f"{norm}.running_mean") * self._scale(norm)
        return shift
