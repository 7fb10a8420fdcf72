"""Builds the ONNX graphs of the speaker encoders.

Contract: `contracts.SPEAKER_NETWORK`; the PyTorch twins are `heartvoice.models.speaker`, `campplus`, `ecapa` and
`wavlm`.
A BatchNorm right after a convolution is folded into it. Segment means are a product with a matrix that is made once per
length, so that a partial last segment is averaged over its own frames. All longer means are means of these.
"""

from __future__ import annotations

import numpy as np

from heartvoice.config.presets import AnySpeaker, CampplusConfig, EcapaConfig, SpeakerConfig, WavlmConfig
from heartvoice.contracts.models import SPEAKER_NETWORK
from heartvoice.export.ecapa_graph import EcapaGraph
from heartvoice.export.graph_builder import Array, Graph, GraphBuilder, pinned
from heartvoice.export.layout import BATCH, Precision, speaker_axes
from heartvoice.export.normed_convs import NormedConvs
from heartvoice.export.wavlm_graph import WavlmGraph
from heartvoice.models.campplus import (
    GATE_REDUCTION,
    HEAD_STRIDE,
    KERNEL,
    TDNN_KERNEL,
    TDNN_STRIDE,
    TRANSIT_REDUCTION,
)
from heartvoice.models.load import TensorSource
from heartvoice.models.speaker import MIN_NORM

_GATES = (0, 3, 1, 2)
"""Index of ONNX's LSTM gates (input, output, forget, cell) in PyTorch's order (input, forget, cell, output)."""


def build_speaker_network(sizes: AnySpeaker, source: TensorSource, precision: Precision = "fp32") -> Graph:
    """Build the graph of `contracts.SPEAKER_NETWORK`: features [B, T, bands] to embedding [B, D].

    Args:
        sizes: they determine the network.
        source: the weights.
        precision: of products and convolutions; an LSTM stays float32.
    """
    b, axes = GraphBuilder(SPEAKER_NETWORK.name, precision), speaker_axes(sizes)
    features = b.input(pinned(SPEAKER_NETWORK.inputs[0], axes), batch=BATCH)
    output = b.output(pinned(SPEAKER_NETWORK.outputs[0], axes), batch=BATCH)
    match sizes:
        case SpeakerConfig():
            _resemblyzer(b, sizes, source, features, output)
        case CampplusConfig():
            _Campplus(b, sizes, source).build(features, output)
        case EcapaConfig():
            EcapaGraph(b, sizes, source).build(features, output)
        case WavlmConfig():
            WavlmGraph(b, sizes, source).build(features, output)
    return b.graph


# --------------------------------------------------------------------------------------------------------- Resemblyzer


def _resemblyzer(b: GraphBuilder, sizes: SpeakerConfig, source: TensorSource, features: str, output: str) -> None:
    x, state = b.transpose(features, 1, 0, 2), ""  # [T, B, bands]
    for layer in range(sizes.num_layers):
        width = sizes.hidden if layer else sizes.n_bands
        with b.fp32_region("recurrence"):
            sequence, state, _ = b.ops(
                "LSTM", x, *_lstm(b, sizes, source, layer, width), outs=("",) * 3, hidden_size=sizes.hidden
            )
        x = b.op("Squeeze", sequence, b.constant([1]))  # [T, 1, B, H] -> [T, B, H]
    hidden = b.op("Squeeze", state, b.constant([0]))  # [1, B, H] -> [B, H]
    weight = b.weight(
        "linear.weight", (sizes.hidden, sizes.embedding), lambda: source.array("linear.weight").T, half=True
    )
    bias = b.weight("linear.bias", (sizes.embedding,), lambda: source.array("linear.bias"))
    raw = b.op("Relu", b.linear(hidden, weight, bias))
    with b.fp32_region("norm"):
        square = b.op("ReduceSum", b.op("Mul", raw, raw), b.constant([1]), keepdims=1)
        norm = b.op("Max", b.op("Sqrt", square), b.constant(MIN_NORM, np.float32))
        b.op("Div", raw, norm, out=output)


def _lstm(b: GraphBuilder, sizes: SpeakerConfig, source: TensorSource, layer: int, width: int) -> tuple[str, str, str]:
    """Declare the weights of one layer in ONNX's form: W [1, 4 H, width], R [1, 4 H, H], B [1, 8 H]."""
    hidden = sizes.hidden

    def ordered(name: str) -> Array:
        gates = source.array(f"lstm.{name}_l{layer}").reshape(4, hidden, -1)
        return gates[list(_GATES)].reshape(4 * hidden, -1)

    def biases() -> Array:
        return np.concatenate([ordered("bias_ih"), ordered("bias_hh")]).reshape(1, -1)

    return (
        b.weight(f"lstm.{layer}.w", (1, 4 * hidden, width), lambda: ordered("weight_ih")[None]),
        b.weight(f"lstm.{layer}.r", (1, 4 * hidden, hidden), lambda: ordered("weight_hh")[None]),
        b.weight(f"lstm.{layer}.b", (1, 8 * hidden), biases),
    )


# ------------------------------------------------------------------------------------------------------------ CAMPPlus


class _Campplus(NormedConvs):
    def __init__(self, b: GraphBuilder, sizes: CampplusConfig, source: TensorSource) -> None:
        super().__init__(b, source)
        self.sizes = sizes
        self.segment_of = self.mean_of_segment = self.share = self.n_frames = ""

    def build(self, features: str, output: str) -> None:
        b, sizes = self.b, self.sizes
        x = self._head(b.op("Unsqueeze", b.transpose(features, 0, 2, 1), b.constant([1])))
        width, name = sizes.init_channels, "xvector.tdnn"
        width_in = sizes.head_channels * sizes.n_bands // HEAD_STRIDE
        shape = (width, width_in, TDNN_KERNEL)
        pads = [TDNN_KERNEL // 2] * 2
        x = self.conv(x, f"{name}.linear", shape, f"{name}.nonlinear.batchnorm", pads=pads, strides=[TDNN_STRIDE])
        x = b.op("Relu", x)
        with b.fp32_region("norm"):
            self._measure(x)
        for number, (depth, dilation) in enumerate(zip(sizes.blocks, sizes.dilations, strict=True), 1):
            for layer in range(1, depth + 1):
                x = self._dense_layer(x, f"xvector.block{number}.tdnnd{layer}", width, dilation)
                width += sizes.growth
            name, last = f"xvector.transit{number}", number == len(sizes.blocks)
            x = b.op("Relu", self.batch_norm(x, f"{name}.nonlinear.batchnorm", width))
            norm = "xvector.out_nonlinear.batchnorm" if last else None
            x = self.conv(x, f"{name}.linear", (width // TRANSIT_REDUCTION, width, 1), norm)
            width //= TRANSIT_REDUCTION
        statistics = self._pool(b.op("Relu", x))
        name, shape = "xvector.dense", (sizes.embedding, 2 * width, 1)
        embedding = self.conv(statistics, f"{name}.linear", shape, f"{name}.nonlinear.batchnorm")
        b.op("Squeeze", embedding, b.constant([2]), out=output)

    # ------------------------------------------------------------------------------------------------------ stages

    def _head(self, x: str) -> str:
        """Add the head: spectrogram [B, 1, F, T] to [B, C * F / 8, T]."""
        b, channels = self.b, self.sizes.head_channels
        square = (channels, channels, KERNEL, KERNEL)
        x = b.op("Relu", self.conv(x, "head.conv1", (channels, 1, KERNEL, KERNEL), "head.bn1", pads=[1] * 4))
        for name, stride in (("layer1.0", 2), ("layer1.1", 1), ("layer2.0", 2), ("layer2.1", 1)):
            path, shortcut = f"head.{name}", x
            if stride > 1:
                shortcut = self.conv(
                    x, f"{path}.shortcut.0", (channels, channels, 1, 1), f"{path}.shortcut.1", strides=[stride, 1]
                )
            branch = self.conv(x, f"{path}.conv1", square, f"{path}.bn1", pads=[1] * 4, strides=[stride, 1])
            branch = self.conv(b.op("Relu", branch), f"{path}.conv2", square, f"{path}.bn2", pads=[1] * 4)
            x = b.op("Relu", b.op("Add", branch, shortcut))
        x = b.op("Relu", self.conv(x, "head.conv2", square, "head.bn2", pads=[1] * 4, strides=[2, 1]))
        return b.reshape(x, [0, channels * self.sizes.n_bands // HEAD_STRIDE, -1])

    def _measure(self, x: str) -> None:
        """Add the segment matrices for the length of [B, C, T], once for all layers."""
        b, length = self.b, self.sizes.segment_frames
        frames = b.size(x, 2)
        self.segment_of = b.op("Div", b.arange(frames), b.constant(length))  # [T]
        last = b.op("Div", b.op("Sub", frames, b.constant([1])), b.constant(length))
        segments = b.arange(b.op("Add", last, b.constant([1])))  # [S]
        rest = b.op("Sub", frames, b.op("Mul", segments, b.constant(length)))
        counts = b.single(b.op("Min", rest, b.constant(length)))
        inside = b.single(b.op("Equal", b.op("Unsqueeze", self.segment_of, b.constant([1])), segments))
        self.mean_of_segment = b.op("Div", inside, counts)  # [T, S]
        self.n_frames = b.single(frames)
        self.share = b.op("Unsqueeze", b.op("Div", counts, self.n_frames), b.constant([1]))  # [S, 1]

    def _means(self, x: str) -> tuple[str, str]:
        """Add means over each segment [B, C, S] and over all time [B, C, 1]."""
        with self.b.fp32_region("norm"):
            segments = self.b.op("MatMul", x, self.mean_of_segment)
            return segments, self.b.op("MatMul", segments, self.share)

    def _dense_layer(self, x: str, name: str, width: int, dilation: int) -> str:
        b, sizes, cam = self.b, self.sizes, f"{name}.cam_layer"
        bottleneck, hidden = sizes.bottleneck, sizes.bottleneck // GATE_REDUCTION
        h = b.op("Relu", self.batch_norm(x, f"{name}.nonlinear1.batchnorm", width))
        h = self.conv(h, f"{name}.linear1", (bottleneck, width, 1), f"{name}.nonlinear2.batchnorm")
        h = b.op("Relu", h)
        shape = (sizes.growth, bottleneck, KERNEL)
        local = self.conv(h, f"{cam}.linear_local", shape, pads=[dilation] * 2, dilations=[dilation])
        segments, mean = self._means(h)
        gate = self.conv(b.op("Add", segments, mean), f"{cam}.linear1", (hidden, bottleneck, 1), bias=True)
        gate = self.conv(b.op("Relu", gate), f"{cam}.linear2", (sizes.growth, hidden, 1), bias=True)
        gate = b.op("Gather", b.op("Sigmoid", gate), self.segment_of, axis=2)  # [B, growth, S] -> [B, growth, T]
        return b.op("Concat", x, b.op("Mul", local, gate), axis=1)

    def _pool(self, x: str) -> str:
        """Add mean and unbiased deviation over time, [B, C, T] to [B, 2 C, 1]."""
        b = self.b
        with b.fp32_region("norm"):
            mean = self._means(x)[1]
            centred = b.op("Sub", x, mean)
            biased = self._means(b.op("Mul", centred, centred))[1]
            unbiased = b.op("Div", self.n_frames, b.op("Sub", self.n_frames, b.constant([1.0], np.float32)))
            return b.op("Concat", mean, b.op("Sqrt", b.op("Mul", biased, unbiased)), axis=1)
