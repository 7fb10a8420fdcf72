"""Builds the F0 network's graph: RMVPE node by node, or swift-f0's published graph.

Contract: `contracts.F0_NETWORK`; RMVPE's PyTorch twin is `heartvoice.models.rmvpe`. Source: seed_vc spec, section 4.
Batch norm after a convolution is folded into it, exactly except for rounding. The norm of the input is not folded,
because the convolution after it pads with zeros, which the norm does not change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from heartvoice.config.presets import AnyF0, RmvpeConfig, SwiftF0Config
from heartvoice.contracts.models import F0_NETWORK
from heartvoice.export.graph_builder import Array, Graph, GraphBuilder, pinned
from heartvoice.export.layout import BATCH, Precision, f0_axes
from heartvoice.export.swift_f0 import build_swift_f0
from heartvoice.models.load import TensorSource
from heartvoice.models.rmvpe import CNN_CHANNELS

_NORM_EPS = 1e-5
_GATES = (1, 0, 2)
"""ONNX has update, reset, new; torch has reset, update, new."""


def build_f0_network(sizes: AnyF0, source: TensorSource, precision: Precision = "fp32") -> Graph:
    """Build the graph of `contracts.F0_NETWORK`.

    Args:
        sizes: they select the engine. swift-f0: samples [B, 1, N] to Hz and confidence [B, T, 2]. RMVPE: log-mel frames
            [B, n_mels, T], T a multiple of 2^en_de_layers, to saliences [B, T, n_bins].
        source: RMVPE's tensors; `swift_f0.OnnxFile` of swift-f0.
        precision: of RMVPE's convolutions and last layer; its GRU, and swift-f0, are single precision.

    Raises:
        CheckpointError: the source belongs to another engine.
    """
    if isinstance(sizes, SwiftF0Config):
        return build_swift_f0(sizes, source, precision)
    return _Rmvpe(sizes, source, precision).build()


class _Rmvpe:
    def __init__(self, sizes: RmvpeConfig, source: TensorSource, precision: Precision) -> None:
        self.sizes, self.source = sizes, source
        self.b = GraphBuilder(F0_NETWORK.name, precision)

    def build(self) -> Graph:
        b, axes = self.b, f0_axes(self.sizes)
        features = b.input(pinned(F0_NETWORK.inputs[0], axes), batch=BATCH)
        output = b.output(pinned(F0_NETWORK.outputs[0], axes), batch=BATCH)
        x = b.op("Unsqueeze", b.transpose(features, 0, 2, 1), b.constant([1]))  # [B, 1, T, M]
        x = self._unet(self._input_norm(x))
        x = self._conv(x, "cnn", self.sizes.en_out_channels, CNN_CHANNELS, 3, bias=self._plain_bias("cnn"))
        x = b.reshape(b.transpose(x, 0, 2, 1, 3), [0, 0, CNN_CHANNELS * self.sizes.n_mels])  # [B, T, 3 M]
        self._head(self._gru(x), output)
        return b.graph

    # ------------------------------------------------------------------------------------------------------ U-Net

    def _unet(self, x: str) -> str:
        b, sizes = self.b, self.sizes
        below, skips = sizes.in_channels, []
        for level in range(sizes.en_de_layers):
            width = sizes.en_out_channels * 2**level
            skips.append(self._blocks(x, f"unet.encoder.layers.{level}.conv", below, width))
            x = b.op("AveragePool", skips[-1], kernel_shape=[2, 2], strides=[2, 2])
            below = width
        for level in range(sizes.inter_layers):
            width = sizes.en_out_channels * 2**sizes.en_de_layers
            x = self._blocks(x, f"unet.intermediate.layers.{level}.conv", below, width)
            below = width
        for level, skip in enumerate(reversed(skips)):
            name, width = f"unet.decoder.layers.{level}", below // 2
            x = self._upsample(x, f"{name}.conv1", below, width)
            x = self._blocks(b.op("Concat", x, skip, axis=1), f"{name}.conv2", 2 * width, width)
            below = width
        return x

    def _input_norm(self, x: str) -> str:
        """Add the norm of the input: a factor and a shift for each channel, [C, 1, 1]."""
        name, shape = "unet.encoder.bn", (self.sizes.in_channels, 1, 1)
        factor = self.b.weight(f"{name}.factor", shape, lambda: self._norm(name)[0].reshape(shape))
        shift = self.b.weight(f"{name}.shift", shape, lambda: self._norm(name)[1].reshape(shape))
        return self.b.op("Add", self.b.op("Mul", x, factor), shift)

    def _blocks(self, x: str, name: str, width_in: int, width_out: int) -> str:
        for index in range(self.sizes.n_blocks):
            x = self._block(x, f"{name}.{index}", width_in, width_out)
            width_in = width_out
        return x

    def _block(self, x: str, name: str, width_in: int, width_out: int) -> str:
        b = self.b
        branch = b.op("Relu", self._normed_conv(x, f"{name}.conv.0", f"{name}.conv.1", width_in, width_out))
        branch = b.op("Relu", self._normed_conv(branch, f"{name}.conv.3", f"{name}.conv.4", width_out, width_out))
        if width_in != width_out:
            shortcut = f"{name}.shortcut"
            x = self._conv(x, shortcut, width_in, width_out, 1, bias=self._plain_bias(shortcut))
        return b.op("Add", branch, x)

    def _norm(self, name: str) -> tuple[Array, Array]:
        """Return a batch norm as factor and shift, float64 [C] each."""
        weight, bias, mean, variance = (
            self.source.array(f"{name}.{part}").astype(np.float64)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        factor = weight / np.sqrt(variance + _NORM_EPS)
        return factor, bias - mean * factor

    def _normed_conv(self, x: str, name: str, norm: str, width_in: int, width_out: int) -> str:
        return self._conv(
            x, name, width_in, width_out, 3,
            bias=lambda: self._norm(norm)[1],
            fold=lambda weight: weight * self._norm(norm)[0].reshape(-1, 1, 1, 1),
        )  # fmt: skip

    def _upsample(self, x: str, name: str, width_in: int, width_out: int) -> str:
        """Add a transposed convolution to twice the size; its weight is [in, out, 3, 3]."""
        norm = f"{name}.1"
        x = self._conv(
            x, f"{name}.0", width_in, width_out, 3,
            bias=lambda: self._norm(norm)[1],
            fold=lambda weight: weight * self._norm(norm)[0].reshape(1, -1, 1, 1),
            transposed=True,
        )  # fmt: skip
        return self.b.op("Relu", x)

    def _plain_bias(self, name: str) -> Callable[[], Array]:
        return lambda: self.source.array(f"{name}.bias")

    def _conv(  # noqa: PLR0913 (a layer's sizes)
        self,
        x: str,
        name: str,
        width_in: int,
        width_out: int,
        kernel: int,
        *,
        bias: Callable[[], Array],
        fold: Callable[[Array], Array] = lambda weight: weight,
        transposed: bool = False,
    ) -> str:
        """Add a convolution that keeps the size, or a transposed one that doubles it."""
        b = self.b
        shape = (width_in, width_out) if transposed else (width_out, width_in)
        weight = b.weight(
            f"{name}.weight", (*shape, kernel, kernel), lambda: fold(self.source.array(f"{name}.weight")), half=True
        )
        options: dict[str, Any] = {"pads": [kernel // 2] * 4, "kernel_shape": [kernel, kernel]}
        if transposed:
            options |= {"kind": "ConvTranspose", "strides": [2, 2], "output_padding": [1, 1]}
        if b.graph.precision == "fp32":
            return b.conv(x, weight, b.weight(f"{name}.bias", (width_out,), bias), **options)
        # In half precision the bias is added outside, in single.
        offset = b.weight(f"{name}.bias", (width_out, 1, 1), lambda: bias().reshape(-1, 1, 1))
        return b.op("Add", b.conv(x, weight, None, **options), offset)

    # ------------------------------------------------------------------------------------------------------- head

    def _gru(self, x: str) -> str:
        """Add a bidirectional GRU, [B, T, D] to [B, T, 2 H]."""
        b, hidden, width = self.b, self.sizes.gru_hidden, CNN_CHANNELS * self.sizes.n_mels
        name = "fc.0.gru"
        weight = b.weight(f"{name}.weight", (2, 3 * hidden, width), lambda: self._gates("weight_ih"))
        recurrence = b.weight(f"{name}.recurrence", (2, 3 * hidden, hidden), lambda: self._gates("weight_hh"))
        bias = b.weight(
            f"{name}.bias", (2, 6 * hidden),
            lambda: np.concatenate([self._gates("bias_ih"), self._gates("bias_hh")], axis=1),
        )  # fmt: skip
        by_time = b.transpose(x, 1, 0, 2)
        with b.fp32_region("recurrence"):
            states = b.op(
                "GRU", by_time, weight, recurrence, bias, direction="bidirectional", hidden_size=hidden,
                linear_before_reset=1,
            )  # fmt: skip
        return b.reshape(b.transpose(states, 2, 0, 1, 3), [0, 0, 2 * hidden])  # from [T, 2, B, H]

    def _gates(self, part: str) -> Array:
        """Return a tensor of both directions with ONNX's order of gates, [2, 3 H, ...]."""
        directions = []
        for suffix in ("", "_reverse"):
            gates = np.split(self.source.array(f"fc.0.gru.{part}_l0{suffix}"), 3)
            directions.append(np.concatenate([gates[gate] for gate in _GATES]))
        return np.stack(directions)

    def _head(self, x: str, output: str) -> None:
        b, width, n_bins = self.b, 2 * self.sizes.gru_hidden, self.sizes.n_bins
        weight = b.weight("fc.1.weight", (width, n_bins), lambda: self.source.array("fc.1.weight").T, half=True)
        bias = b.weight("fc.1.bias", (n_bins,), lambda: self.source.array("fc.1.bias"))
        b.op("Sigmoid", b.linear(x, weight, bias), out=output)
