"""Adds ECAPA-TDNN to a graph; the PyTorch twin is `heartvoice.models.ecapa`.

The attention's first convolution reads frames, mean and deviation. Its parts for the last two are computed once, for
one frame, since both are the same at all times.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from heartvoice.config.presets import EcapaConfig
from heartvoice.export.graph_builder import GraphBuilder
from heartvoice.export.normed_convs import NormedConvs
from heartvoice.models.ecapa import MIN_VARIANCE
from heartvoice.models.load import TensorSource


class EcapaGraph(NormedConvs):
    """Builds the network of one checkpoint."""

    def __init__(self, b: GraphBuilder, sizes: EcapaConfig, source: TensorSource) -> None:
        super().__init__(b, source)
        self.sizes = sizes

    def build(self, features: str, output: str) -> None:
        """Add the network: features [B, T, bands] to the embedding [B, D]."""
        b, sizes = self.b, self.sizes
        *widths, width_out = sizes.channels
        x = b.transpose(features, 0, 2, 1)
        x = self._tdnn(x, "blocks.0", (widths[0], sizes.input_size, sizes.kernel_sizes[0]), sizes.dilations[0])
        outputs = []
        for index, (before, after) in enumerate(pairwise(widths), 1):
            x = self._block(x, index, before, after)
            outputs.append(x)
        x = b.op("Concat", *outputs, axis=1)
        x = self._tdnn(x, "mfa", (width_out, sum(widths[1:]), sizes.kernel_sizes[-1]), sizes.dilations[-1])
        pooled = self.batch_norm(self._pool(x, width_out), "asp_bn.norm", 2 * width_out)
        embedding = self.conv(pooled, "fc.conv", (sizes.lin_neurons, 2 * width_out, 1), bias=True)
        b.op("Squeeze", embedding, b.constant([2]), out=output)

    def _tdnn(self, x: str, name: str, shape: tuple[int, int, int], dilation: int = 1) -> str:
        """Add convolution, ReLU and BatchNorm; `shape` is [out, in, kernel]."""
        b, padding = self.b, (shape[2] - 1) * dilation // 2
        if padding:
            x = b.op("Pad", x, b.constant([0, 0, padding, 0, 0, padding]), mode="reflect")
        x = b.op("Relu", self.conv(x, f"{name}.conv.conv", shape, bias=True, dilations=[dilation]))
        return self.batch_norm(x, f"{name}.norm.norm", shape[0])

    def _block(self, x: str, index: int, width_in: int, width_out: int) -> str:
        """Add a residual block: TDNN, channel groups, TDNN, squeeze and excitation."""
        b, sizes, name = self.b, self.sizes, f"blocks.{index}"
        group = width_out // sizes.res2net_scale
        y = self._tdnn(x, f"{name}.tdnn1", (width_out, width_in, 1))
        first, second, *others = b.split(y, [group] * sizes.res2net_scale, axis=1)
        shape, dilation = (group, group, sizes.kernel_sizes[index]), sizes.dilations[index]
        outputs = [first, self._tdnn(second, f"{name}.res2net_block.blocks.0", shape, dilation)]
        for number, other in enumerate(others, 1):
            taken = b.op("Add", other, outputs[-1])
            outputs.append(self._tdnn(taken, f"{name}.res2net_block.blocks.{number}", shape, dilation))
        y = self._tdnn(b.op("Concat", *outputs, axis=1), f"{name}.tdnn2", (width_out, width_out, 1))
        gate = self.conv(self._mean(y), f"{name}.se_block.conv1.conv", (sizes.se_channels, width_out, 1), bias=True)
        gate = self.conv(
            b.op("Relu", gate), f"{name}.se_block.conv2.conv", (width_out, sizes.se_channels, 1), bias=True
        )
        y = b.op("Mul", y, b.op("Sigmoid", gate))
        if width_in != width_out:
            x = self.conv(x, f"{name}.shortcut.conv", (width_out, width_in, 1), bias=True)
        return b.add_residual(y, x)

    def _pool(self, x: str, width: int) -> str:
        """Add the attentive statistics: [B, C, T] to [B, 2 C, 1]."""
        b, hidden = self.b, self.sizes.attention_channels
        with b.fp32_region("norm"):
            mean = self._mean(x)
            centred = b.op("Sub", x, mean)
            deviation = self._deviation(self._mean(b.op("Mul", centred, centred)))
        name = "asp.tdnn.conv.conv"

        def weight(part: str, start: int, end: int) -> str:
            return b.weight(
                f"{name}.weight.{part}",
                (hidden, end - start, 1),
                lambda: self.source.array(f"{name}.weight")[:, start:end],
                half=True,
            )

        frames = b.conv(x, weight("frames", 0, width), None, kernel_shape=[1])
        statistics = b.op("Concat", mean, deviation, axis=1)
        constant = b.conv(statistics, weight("statistics", width, 3 * width), None, kernel_shape=[1])
        bias = b.weight(f"{name}.bias", (hidden, 1), lambda: self.source.array(f"{name}.bias").reshape(-1, 1))
        seen = b.op("Relu", b.op("Add", frames, b.op("Add", constant, bias)))
        seen = b.op("Tanh", self.batch_norm(seen, "asp.tdnn.norm.norm", hidden))
        attention = b.softmax(self.conv(seen, "asp.conv.conv", (width, hidden, 1), bias=True), 2)
        with b.fp32_region("norm"):
            mean = self._sum(b.op("Mul", x, attention))
            centred = b.op("Sub", x, mean)
            deviation = self._deviation(self._sum(b.op("Mul", b.op("Mul", centred, centred), attention)))
            return b.op("Concat", mean, deviation, axis=1)

    def _mean(self, x: str) -> str:
        """Add the mean over time."""
        with self.b.fp32_region("norm"):
            return self.b.op("ReduceMean", x, self.b.constant([2]), keepdims=1)

    def _sum(self, x: str) -> str:
        return self.b.op("ReduceSum", x, self.b.constant([2]), keepdims=1)

    def _deviation(self, variance: str) -> str:
        return self.b.op("Sqrt", self.b.op("Max", variance, self.b.constant(MIN_VARIANCE, np.float32)))
