"""Builds the ONNX graphs of the converter's content encoder and length regulator.

Contracts: `contracts.CONTENT_ENCODER` and `SVC_REGULATOR`; the PyTorch twins are in `heartvoice.models.seed_vc`.
Source: seed_vc spec, sections 3 and 6.
"""

from __future__ import annotations

import numpy as np

from heartvoice.config.svc import RegulatorConfig, WhisperConfig
from heartvoice.contracts.graphs import CONTENT_ENCODER, SVC_REGULATOR, content_axes, regulator_axes
from heartvoice.export.graph_builder import Graph, GraphBuilder, pinned
from heartvoice.export.layout import BATCH, Precision
from heartvoice.models.load import TensorSource
from heartvoice.models.seed_vc import regulator, whisper

SUM_FRAMES = 256
"""Frames of a partial sum over time: one sum over a song of ten minutes would lose digits."""


class Dense:
    """Adds linear layers and convolutions of a checkpoint."""

    def __init__(self, b: GraphBuilder, source: TensorSource) -> None:
        self.b, self.source = b, source

    def vector(self, name: str, width: int, scale: float = 1.0) -> str:
        """Declare a tensor of one axis, times a number."""
        return self.b.weight(name, (width,), lambda: self.source.array(name) * np.float32(scale))

    def matrix(self, name: str, width_in: int, width_out: int, scale: float = 1.0) -> str:
        """Declare the weight of a linear layer, [in, out], times a number."""
        return self.b.weight(
            f"{name}.weight",
            (width_in, width_out),
            lambda: self.source.array(f"{name}.weight").T * np.float32(scale),
            half=True,
        )

    def linear(  # noqa: PLR0913 (a layer's sizes)
        self, x: str, name: str, width_in: int, width_out: int, *, bias: bool = True, scale: float = 1.0,
        residual: str | None = None, out: str = "",
    ) -> str:  # fmt: skip
        """Add a linear layer, its result times a number."""
        offset = self.vector(f"{name}.bias", width_out, scale) if bias else None
        return self.b.linear(x, self.matrix(name, width_in, width_out, scale), offset, residual=residual, out=out)

    def conv(self, x: str, name: str, shape: tuple[int, int, int], *, stride: int = 1) -> str:
        """Add a convolution over time that keeps the length except for the stride."""
        kernel = self.b.weight(f"{name}.weight", shape, lambda: self.source.array(f"{name}.weight"), half=True)
        return self.b.conv(
            x, kernel, self.vector(f"{name}.bias", shape[0]),
            kernel_shape=[shape[2]], pads=[shape[2] // 2] * 2, strides=[stride],
        )  # fmt: skip


# -------------------------------------------------------------------------------------------------------------- Whisper


def build_content_encoder(sizes: WhisperConfig, source: TensorSource, precision: Precision = "fp32") -> Graph:
    """Build the graph of `contracts.CONTENT_ENCODER`: log-mel [B, bands, 2 S] to content [B, S, D]."""
    b, axes = GraphBuilder(CONTENT_ENCODER.name, precision), content_axes(sizes)
    log_mel = b.input(pinned(CONTENT_ENCODER.inputs[0], axes), batch=BATCH)
    output = b.output(pinned(CONTENT_ENCODER.outputs[0], axes), batch=BATCH)
    _Whisper(b, sizes, source).build(log_mel, output)
    return b.graph


class _Whisper:
    def __init__(self, b: GraphBuilder, sizes: WhisperConfig, source: TensorSource) -> None:
        self.b, self.sizes, self.source, self.dense = b, sizes, source, Dense(b, source)

    def build(self, log_mel: str, output: str) -> None:
        b, sizes = self.b, self.sizes
        width, positions = sizes.d_model, "encoder.embed_positions.weight"
        shape = (width, sizes.num_mel_bins, whisper.KERNEL)
        x = b.op("Gelu", self.dense.conv(log_mel, "encoder.conv1", shape))
        x = self.dense.conv(x, "encoder.conv2", (width, width, whisper.KERNEL), stride=whisper.STRIDE)
        x = b.transpose(b.op("Gelu", x), 0, 2, 1)  # [B, S, D]
        table = b.weight(positions, (sizes.max_source_positions, width), lambda: self.source.array(positions))
        x = b.op("Add", x, table)
        for index in range(sizes.encoder_layers):
            x = self._layer(x, f"encoder.layers.{index}")
        self._norm(x, "encoder.layer_norm", out=output)

    def _norm(self, x: str, name: str, *, out: str = "") -> str:
        gain, offset = (self.dense.vector(f"{name}.{part}", self.sizes.d_model) for part in ("weight", "bias"))
        return self.b.layer_norm(x, gain, offset, eps=whisper.NORM_EPS, out=out)

    def _layer(self, x: str, name: str) -> str:
        b, dense, width, hidden = self.b, self.dense, self.sizes.d_model, self.sizes.encoder_ffn_dim
        mixed = self._attention(self._norm(x, f"{name}.self_attn_layer_norm"), f"{name}.self_attn")
        x = dense.linear(mixed, f"{name}.self_attn.out_proj", width, width, residual=x)
        inner = b.op("Gelu", dense.linear(self._norm(x, f"{name}.final_layer_norm"), f"{name}.fc1", width, hidden))
        return dense.linear(inner, f"{name}.fc2", hidden, width, residual=x)

    def _attention(self, x: str, name: str) -> str:
        """Add the attention before its output projection, [B, S, D]."""
        b, width, count = self.b, self.sizes.d_model, self.sizes.encoder_attention_heads
        head_dim = width // count
        query = self.dense.linear(x, f"{name}.q_proj", width, width, scale=head_dim**-0.5)
        key = self.dense.linear(x, f"{name}.k_proj", width, width, bias=False)
        value = self.dense.linear(x, f"{name}.v_proj", width, width)
        heads = [b.split(part, [head_dim] * count, axis=2) for part in (query, key, value)]
        return attend(b, *heads)


def attend(b: GraphBuilder, queries: tuple[str, ...], keys: tuple[str, ...], values: tuple[str, ...]) -> str:
    """Add the attention of scaled queries, [B, T, hd] for each head, to [B, T, D].

    Heads are separate: the scores of all heads together would be by far the graph's largest tensor.
    """
    mixed = []
    for query, key, value in zip(queries, keys, values, strict=True):
        scores = b.matmul(query, b.transpose(key, 0, 2, 1))  # [B, T, T]
        mixed.append(b.matmul(b.softmax(scores, 2), value))
    return b.op("Concat", *mixed, axis=2)


# ------------------------------------------------------------------------------------------------------------ regulator


def build_svc_regulator(sizes: RegulatorConfig, source: TensorSource, precision: Precision = "fp32") -> Graph:
    """Build the graph of `contracts.SVC_REGULATOR`: content [1, S, C] and bins [1, T] to cond [1, T, D].

    An index or a bin that is out of range is an error of the engine.
    """
    b, axes = GraphBuilder(SVC_REGULATOR.name, precision), regulator_axes(sizes)
    content, index, bins = (b.input(pinned(tensor, axes)) for tensor in SVC_REGULATOR.inputs)
    output = b.output(pinned(SVC_REGULATOR.outputs[0], axes))
    _Regulator(b, sizes, source).build(content, index, bins, output)
    return b.graph


class _Regulator:
    def __init__(self, b: GraphBuilder, sizes: RegulatorConfig, source: TensorSource) -> None:
        self.b, self.sizes, self.source, self.dense = b, sizes, source, Dense(b, source)

    def build(self, content: str, index: str, bins: str, output: str) -> None:
        b, sizes, width, table = self.b, self.sizes, self.sizes.channels, "f0_embedding.weight"
        x = b.op("Gather", self.dense.linear(content, "content_in_proj", sizes.in_channels, width), index, axis=1)
        pitches = b.weight(table, (sizes.n_f0_bins, width), lambda: self.source.array(table), half=True)
        x = b.transpose(b.op("Add", x, b.embed(pitches, bins)), 0, 2, 1)  # [1, D, T]
        frames = b.size(x, 2)
        with b.fp32_region("norm"):  # exceeds the range of half precision
            count = b.op("Mul", b.single(frames), b.constant([float(width)], np.float32))
        rest = b.op("Mod", b.op("Neg", frames), b.constant([SUM_FRAMES]))
        pads = b.op("Concat", b.constant([0, 0, 0, 0, 0]), rest, axis=0)
        for stage in range(sizes.n_stages):
            first = regulator.LAYERS_PER_STAGE * stage
            x = self.dense.conv(x, f"model.{first}", (width, width, regulator.KERNEL))
            with b.fp32_region("norm"):
                x = self._norm(x, f"model.{first + 1}", count, pads)
            x = self._mish(x)
        x = self.dense.conv(x, f"model.{regulator.LAYERS_PER_STAGE * sizes.n_stages}", (width, width, 1))
        b.transpose(x, 0, 2, 1, out=output)

    def _norm(self, x: str, name: str, count: str, pads: str) -> str:
        """Add a norm over all channels and frames [1, D, T], by nested partial sums."""
        b = self.b

        def mean(kind: str, values: str) -> str:
            by_frame = b.op("Pad", b.op(kind, values, b.constant([1]), keepdims=1), pads)  # [1, 1, T'], zeros added
            by_piece = b.op("ReduceSum", b.reshape(by_frame, [-1, SUM_FRAMES]), b.constant([1]), keepdims=0)
            return b.op("Div", b.op("ReduceSum", by_piece, b.constant([0]), keepdims=1), count)  # [1]

        centred = b.op("Sub", x, mean("ReduceSum", x))
        variance = b.op("Add", mean("ReduceSumSquare", centred), b.constant([regulator.NORM_EPS], np.float32))
        gain, offset = (self._column(f"{name}.{part}") for part in ("weight", "bias"))
        return b.op("Add", b.op("Mul", centred, b.op("Div", gain, b.op("Sqrt", variance))), offset)

    def _column(self, name: str) -> str:
        """Declare a tensor of one axis as [D, 1]."""
        return self.b.weight(name, (self.sizes.channels, 1), lambda: self.source.array(name)[:, None])

    def _mish(self, x: str) -> str:
        return self.b.op("Mul", x, self.b.op("Tanh", self.b.op("Softplus", x)))
