"""Adds WavLM with its x-vector head to a graph; the PyTorch twin is `heartvoice.models.wavlm`.

All heads are one tensor: the scores of 10 s take 12 MB, and a graph of separate heads has so many nodes that opening it
takes longer than running it. The bias by distance is looked up once and used by every layer.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from heartvoice.config.presets import WavlmConfig
from heartvoice.contracts.tensors import SPEAKER_FRAME
from heartvoice.export.graph_builder import Array, GraphBuilder
from heartvoice.export.svc_graphs import Dense
from heartvoice.models.load import TensorSource
from heartvoice.models.wavlm import GATE_PARTS, distance_buckets

_FIRST = "wavlm.encoder.layers.0.attention.rel_attn_embed.weight"


class WavlmGraph:
    """Builds the network of one checkpoint."""

    def __init__(self, b: GraphBuilder, sizes: WavlmConfig, source: TensorSource) -> None:
        self.b, self.sizes, self.source, self.dense = b, sizes, source, Dense(b, source)

    def build(self, features: str, output: str) -> None:
        """Add the network: samples [B, N, 1] to the embedding [B, D]."""
        b, sizes = self.b, self.sizes
        x = self._frames(b.transpose(features, 0, 2, 1))
        name, width = "wavlm.feature_projection", sizes.hidden_size
        x = self._norm(x, f"{name}.layer_norm", sizes.conv_dim[-1])
        x = self.dense.linear(x, f"{name}.projection", sizes.conv_dim[-1], width)
        x = b.add_residual(x, self._positions(x))
        if not sizes.do_stable_layer_norm:
            x = self._norm(x, "wavlm.encoder.layer_norm", width)
        bias, total = self._bias(x), self._weighted(x, 0)
        for index in range(sizes.num_hidden_layers):
            x = self._layer(x, f"wavlm.encoder.layers.{index}", bias)
            total = b.add_residual(total, self._weighted(x, index + 1))
        x = self.dense.linear(total, "projector", width, sizes.tdnn_dim[0])
        self._head(b.transpose(x, 0, 2, 1), output)

    # ------------------------------------------------------------------------------------------------------- samples

    def _frames(self, x: str) -> str:
        """Add the feature extractor: [B, 1, N] to [B, T, C]."""
        b, sizes = self.b, self.sizes
        for index, (width_in, width) in enumerate(pairwise((1, *sizes.conv_dim))):
            name, kernel = f"wavlm.feature_extractor.conv_layers.{index}", sizes.conv_kernel[index]
            bias = self.dense.vector(f"{name}.conv.bias", width) if sizes.conv_bias else None
            weight = self._weight(f"{name}.conv.weight", (width, width_in, kernel))
            x = b.conv(x, weight, bias, kernel_shape=[kernel], strides=[sizes.conv_stride[index]])
            if sizes.feat_extract_norm == "layer":
                normed = self._norm(b.transpose(x, 0, 2, 1), f"{name}.layer_norm", width, eps=1e-5)
                x = b.transpose(normed, 0, 2, 1)
            elif index == 0:
                x = self._norm_over_time(x, f"{name}.layer_norm", width)
            x = b.op("Gelu", x)
        return b.transpose(x, 0, 2, 1)

    def _norm_over_time(self, x: str, name: str, width: int) -> str:
        """Add a norm of each channel of [B, C, T] over time."""
        scales = (self.dense.vector(f"{name}.{part}", width) for part in ("weight", "bias"))
        with self.b.fp32_region("norm"):
            return self.b.op("InstanceNormalization", x, *scales, epsilon=1e-5)

    def _positions(self, x: str) -> str:
        """Add the positional convolution with its weight norm folded: [B, T, D] to the same shape."""
        b, sizes, name = self.b, self.sizes, "wavlm.encoder.pos_conv_embed.conv"
        width, kernel, groups = sizes.hidden_size, sizes.num_conv_pos_embeddings, sizes.num_conv_pos_embedding_groups

        def folded() -> Array:
            gain, direction = (
                self.source.array(f"{name}.parametrizations.weight.original{part}").astype(np.float64)
                for part in (0, 1)
            )
            weight: Array = direction * (gain / np.sqrt(np.square(direction).sum(axis=(0, 1), keepdims=True)))
            return weight

        weight = b.weight(f"{name}.weight", (width, width // groups, kernel), folded, half=True)
        y = b.conv(
            b.transpose(x, 0, 2, 1), weight, self.dense.vector(f"{name}.bias", width),
            kernel_shape=[kernel], pads=[kernel // 2] * 2, group=groups,
        )  # fmt: skip
        return b.op("Gelu", b.slice(b.transpose(y, 0, 2, 1), 0, b.size(x, 1), 1))

    # -------------------------------------------------------------------------------------------------------- encoder

    def _bias(self, x: str) -> str:
        """Add the bias by distance for the length of [B, T, D]: [1, H, T, T]."""
        b, sizes, most = self.b, self.sizes, self._most_frames()

        def table() -> Array:
            values: Array = self.source.array(_FIRST)[distance_buckets(sizes, most)].T
            return values

        by_distance = b.weight(_FIRST, (sizes.num_attention_heads, 2 * most - 1), table)
        with b.fp32_region("softmax"):
            frame = b.arange(b.size(x, 1))
            distance = b.op("Sub", frame, b.op("Unsqueeze", frame, b.constant([1])))
            index = b.op("Add", distance, b.constant(most - 1))
            return b.op("Unsqueeze", b.op("Gather", by_distance, index, axis=1), b.constant([0]))

    def _most_frames(self) -> int:
        """Frames of the longest wave of the contract."""
        n = SPEAKER_FRAME.max
        for kernel, stride in zip(self.sizes.conv_kernel, self.sizes.conv_stride, strict=True):
            n = (n - kernel) // stride + 1
        return n

    def _layer(self, x: str, name: str, bias: str) -> str:
        b, dense, width, hidden = self.b, self.dense, self.sizes.hidden_size, self.sizes.intermediate_size
        norm_first = self.sizes.do_stable_layer_norm
        heard = self._norm(x, f"{name}.layer_norm", width) if norm_first else x
        mixed = self._attention(heard, f"{name}.attention", bias)
        x = dense.linear(mixed, f"{name}.attention.out_proj", width, width, residual=x)
        if not norm_first:
            x = self._norm(x, f"{name}.layer_norm", width)
        heard = self._norm(x, f"{name}.final_layer_norm", width) if norm_first else x
        inner = b.op("Gelu", dense.linear(heard, f"{name}.feed_forward.intermediate_dense", width, hidden))
        x = dense.linear(inner, f"{name}.feed_forward.output_dense", hidden, width, residual=x)
        return x if norm_first else self._norm(x, f"{name}.final_layer_norm", width)

    def _attention(self, x: str, name: str, bias: str) -> str:
        """Add the attention before its output projection: [B, T, D] to the same shape."""
        b, dense, width, count = self.b, self.dense, self.sizes.hidden_size, self.sizes.num_attention_heads
        query, key, value = (
            self._heads(dense.linear(x, f"{name}.{part}_proj", width, width, scale=scale))
            for part, scale in (("q", (width // count) ** -0.5), ("k", 1.0), ("v", 1.0))
        )
        scores = b.matmul(query, b.transpose(key, 0, 1, 3, 2))
        with b.fp32_region("softmax"):
            scores = b.op("Add", scores, b.op("Mul", self._gate(self._heads(x), name), bias))
            weights = b.op("Softmax", scores, axis=3)
        return b.reshape(b.transpose(b.matmul(weights, value), 0, 2, 1, 3), [0, 0, width])

    def _heads(self, x: str) -> str:
        """[B, T, D] to [B, H, T, D / H]."""
        count = self.sizes.num_attention_heads
        return self.b.transpose(self.b.reshape(x, [0, 0, count, self.sizes.hidden_size // count]), 0, 2, 1, 3)

    def _gate(self, heads: str, name: str) -> str:
        """Add the gate of each query, [B, H, T, 1]; the sums of its four values are folded into the layer."""
        b, sizes, one = self.b, self.sizes, self.b.constant(1.0, np.float32)
        linear, width, count = f"{name}.gru_rel_pos_linear", sizes.hidden_size, sizes.num_attention_heads

        def summed(part: str) -> Array:
            values: Array = self.source.array(f"{linear}.{part}").reshape(2, GATE_PARTS, -1).sum(axis=1)
            return values

        weight = b.weight(f"{linear}.weight", (width // count, 2), lambda: summed("weight").T)
        offset = b.weight(f"{linear}.bias", (2,), lambda: summed("bias").reshape(-1))
        gates = b.op("Sigmoid", b.op("Add", b.op("MatMul", heads, weight), offset))
        first, second = b.split(gates, [1, 1], axis=3)
        constant = b.weight(
            f"{name}.gru_rel_pos_const", (1, count, 1, 1), lambda: self.source.array(f"{name}.gru_rel_pos_const")
        )
        inner = b.op("Sub", b.op("Mul", second, constant), one)
        return b.op("Add", b.op("Mul", first, inner), b.constant(2.0, np.float32))

    def _weighted(self, x: str, index: int) -> str:
        """Add a state times its share in the weighted sum of all."""

        def share() -> Array:
            raw = np.exp(self.source.array("layer_weights").astype(np.float64))
            values: Array = (raw / raw.sum())[index : index + 1]
            return values

        return self.b.op("Mul", x, self.b.weight(f"layer_weights.{index}", (1,), share))

    # ------------------------------------------------------------------------------------------------------- x-vector

    def _head(self, x: str, output: str) -> None:
        """Add the x-vector's layers, pooling and projection: [B, C, T] to [B, D]."""
        b, sizes = self.b, self.sizes
        widths = pairwise((sizes.tdnn_dim[0], *sizes.tdnn_dim))
        for index, ((width_in, width), taps) in enumerate(zip(widths, sizes.tdnn_kernel, strict=True)):
            name = f"tdnn.{index}.kernel"

            def kernel(name: str = name, shape: tuple[int, int, int] = (width, taps, width_in)) -> Array:
                return self.source.array(f"{name}.weight").reshape(shape).transpose(0, 2, 1)

            weight = b.weight(f"{name}.weight", (width, width_in, taps), kernel, half=True)
            bias = self.dense.vector(f"{name}.bias", width)
            x = b.op("Relu", b.conv(x, weight, bias, kernel_shape=[taps], dilations=[sizes.tdnn_dilation[index]]))
        with b.fp32_region("norm"):
            count = b.single(b.size(x, 2))
            mean = b.op("ReduceMean", x, b.constant([2]), keepdims=1)
            centred = b.op("Sub", x, mean)
            square = b.op("ReduceSum", b.op("Mul", centred, centred), b.constant([2]), keepdims=1)
            variance = b.op("Div", square, b.op("Sub", count, b.constant([1.0], np.float32)))
            pooled = b.op("Concat", mean, b.op("Sqrt", variance), axis=1)
        pooled = b.op("Squeeze", pooled, b.constant([2]))
        self.dense.linear(pooled, "feature_extractor", 2 * sizes.tdnn_dim[-1], sizes.xvector_output_dim, out=output)

    # ---------------------------------------------------------------------------------------------------------- parts

    def _weight(self, name: str, shape: tuple[int, ...]) -> str:
        return self.b.weight(name, shape, lambda: self.source.array(name), half=True)

    def _norm(self, x: str, name: str, width: int, *, eps: float | None = None) -> str:
        gain, offset = (self.dense.vector(f"{name}.{part}", width) for part in ("weight", "bias"))
        return self.b.layer_norm(x, gain, offset, eps=self.sizes.layer_norm_eps if eps is None else eps)
