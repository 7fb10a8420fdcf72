"""Builds the ONNX graphs of HeartCodec's condition and velocity network.

Contracts: `contracts.HEARTCODEC_CONDITION` and `HEARTCODEC_FLOW`; the PyTorch twins are
`heartvoice.models.heartcodec.flow` and `estimator`. Source: heartcodec spec, sections 3 and 4.
"""

from __future__ import annotations

import math

import numpy as np

from heartvoice.config.presets import HeartCodecConfig
from heartvoice.contracts.models import HEARTCODEC_CONDITION, HEARTCODEC_FLOW
from heartvoice.export.graph_builder import Array, Graph, GraphBuilder, pinned
from heartvoice.export.layout import BATCH, Precision, codec_axes
from heartvoice.export.llama_graph import quarter_turn
from heartvoice.models.heartcodec.estimator import (
    NORM_EPS,
    ROPE_BASE,
    TIME_FACTOR,
    TIME_PERIOD,
    TIME_WIDTH,
    mlp_width,
)
from heartvoice.models.load import TensorSource
from heartvoice.models.rope import rope_frequencies

_FLOW = "flow_matching"
_ESTIMATOR = "flow_matching.estimator"


def build_heartcodec_condition(sizes: HeartCodecConfig, source: TensorSource, precision: Precision = "fp32") -> Graph:
    """Build the graph of `contracts.HEARTCODEC_CONDITION`: codes int32 [B, K, W] to mu [B, 2 W, dim].

    A code of -1 contributes zero. A code beyond the codebook is an error of the engine.
    """
    b, spec = GraphBuilder(HEARTCODEC_CONDITION.name, precision), HEARTCODEC_CONDITION
    codes = b.input(spec.inputs[0], batch=BATCH)
    output = b.output(pinned(spec.outputs[0], codec_axes(sizes)), batch=BATCH)
    total = _lookup(b, codes, sizes, source)  # [B, W, codebook_dim]
    if sizes.codebook_dim != sizes.dim:
        total = _dense(b, total, source, f"{_FLOW}.vq_embed.project_out", sizes.codebook_dim, sizes.dim)
    feature = _dense(b, total, source, f"{_FLOW}.cond_feature_emb", sizes.dim, sizes.dim)
    pair = b.op("Unsqueeze", feature, b.constant([2]))
    b.reshape(b.op("Concat", pair, pair, axis=2), [0, -1, sizes.dim], out=output)
    return b.graph


def _lookup(b: GraphBuilder, codes: str, sizes: HeartCodecConfig, source: TensorSource) -> str:
    """Add the sum of the codes' vectors, [B, W, codebook_dim]."""
    size, levels, width = sizes.codebook_size, sizes.num_quantizers, sizes.codebook_dim

    def table() -> Array:
        tables = [source.array(f"{_FLOW}.vq_embed.layers.{level}._codebook.embed")[0] for level in range(levels)]
        return np.concatenate([*tables, np.zeros((1, width), dtype=np.float32)])

    weight = b.weight(f"{_FLOW}.vq_embed.embed", (levels * size + 1, width), table, half=True)
    # Levels are the first axis: only then does onnxruntime sum in the same order for one row and for several.
    codes = b.transpose(codes, 1, 0, 2)  # [K, B, W]
    first = (np.arange(levels) * size)[:, None, None]
    row = b.op("Add", codes, b.constant(first, np.int32))
    # A code outside of its level's table would read another level's table, so it is moved out of range.
    too_large = b.op("GreaterOrEqual", codes, b.constant(size, np.int32))
    outside = b.op("Or", too_large, b.op("Less", codes, b.constant(0, np.int32)))
    row = b.op("Where", outside, b.constant(levels * size + 1, np.int32), row)
    nothing = b.op("Equal", codes, b.constant(-1, np.int32))
    row = b.op("Where", nothing, b.constant(levels * size, np.int32), row)
    with b.fp32_region("lookup"):
        return b.op("ReduceSum", b.embed(weight, row), b.constant([0]), keepdims=0)


def build_heartcodec_flow(sizes: HeartCodecConfig, source: TensorSource, precision: Precision = "fp32") -> Graph:
    """Build the graph of `contracts.HEARTCODEC_FLOW`: x, context, mu [R, T, .] and t [R, 1] to velocity [R, T, L]."""
    b, spec, axes = GraphBuilder(HEARTCODEC_FLOW.name, precision), HEARTCODEC_FLOW, codec_axes(sizes)
    x, context, mu, t = (b.input(pinned(tensor, axes), batch=BATCH) for tensor in spec.inputs)
    output = b.output(pinned(spec.outputs[0], axes), batch=BATCH)
    n_frames = b.size(x, 1)
    with b.fp32_region("time"):
        sinusoid = _sinusoid(b, t)
    flow = _Estimator(b, sizes, source, n_frames=n_frames, sinusoid=sinusoid)
    flow.run(b.op("Concat", x, context, mu, axis=2), output)
    return b.graph


def _sinusoid(b: GraphBuilder, t: str) -> str:
    """Add the input of the time embedding, [R, 512], cosines first."""
    half = TIME_WIDTH // 2
    exponent = (-math.log(TIME_PERIOD) * np.arange(half, dtype=np.float32) / half).astype(np.float32)
    frequency = np.exp(exponent.astype(np.float64))
    angle = b.op("Mul", t, b.constant(frequency, np.float32))
    angle = b.op("Mul", angle, b.constant(TIME_FACTOR, np.float32))
    return b.op("Concat", b.op("Cos", angle), b.op("Sin", angle), axis=1)


def _dense(
    b: GraphBuilder, x: str, source: TensorSource, name: str, width_in: int, width_out: int, *, bias: bool = True
) -> str:
    """Add a linear layer of the checkpoint."""
    weight = b.weight(f"{name}.weight", (width_in, width_out), lambda: source.array(f"{name}.weight").T, half=True)
    if not bias:
        return b.matmul(x, weight)
    return b.linear(x, weight, b.weight(f"{name}.bias", (width_out,), lambda: source.array(f"{name}.bias")))


class _Stack:
    """State shared by the blocks of one stack: width, modulation and RoPE tables."""

    def __init__(self, b: GraphBuilder, prefix: str, width: int, head_dim: int, n_frames: str) -> None:
        self.prefix, self.width, self.head_dim = prefix, width, head_dim
        theta = np.repeat(rope_frequencies(head_dim, ROPE_BASE), 2)
        with b.fp32_region("rope"):
            position = b.op("Cast", b.arange(n_frames), to=1)
            angle = b.op("Mul", b.op("Unsqueeze", position, b.constant([1])), b.constant(theta, np.float32))
            self.cos, self.sin = b.op("Cos", angle), b.op("Sin", angle)  # [T, hd]
        self.turn = b.constant(quarter_turn(head_dim), np.float32)


class _Estimator:
    """Builds the velocity network part by part."""

    def __init__(
        self, b: GraphBuilder, sizes: HeartCodecConfig, source: TensorSource, *, n_frames: str, sinusoid: str
    ) -> None:
        self.b, self.sizes, self.source, self.n_frames, self.sinusoid = b, sizes, source, n_frames, sinusoid

    def run(self, joined: str, output: str) -> None:
        b, sizes = self.b, self.sizes
        head_dim = sizes.attention_head_dim
        width = sizes.num_attention_heads * head_dim
        hidden = self._project(joined, "proj_in", sizes.in_channels, width)
        first = _Stack(b, "transformer_blocks", width, head_dim, self.n_frames)
        hidden = self._blocks(hidden, first, sizes.num_layers, "adaln_single", "scale_shift_table")
        both = b.op("Concat", joined, hidden, axis=2)
        hidden = self._project(both, "connection_proj", sizes.in_channels + width, 2 * width)
        second = _Stack(b, "transformer_blocks_2", 2 * width, 2 * head_dim, self.n_frames)
        hidden = self._blocks(hidden, second, sizes.num_layers_2, "adaln_single_2", "scale_shift_table_2")
        self._project(hidden, "proj_out", 2 * width, sizes.out_channels, out=output)

    def _table(self, name: str, rows: int, width: int, scales: tuple[int, ...]) -> str:
        """Declare a table of the checkpoint, with scale rows stored as 1 + scale."""

        def make() -> Array:
            table = self.source.array(name)
            table[list(scales)] += 1
            return table

        return self.b.weight(name, (rows, width), make)

    def _project(self, x: str, name: str, width_in: int, width_out: int, *, out: str = "") -> str:
        """Add a convolution over three frames and a linear layer.

        The convolution's weights include the factor 3^-0.5.
        """
        b, source, prefix = self.b, self.source, f"{_ESTIMATOR}.{name}"
        factor = np.float32(3**-0.5)
        weight = b.weight(
            f"{prefix}.ffn_1.weight",
            (width_out, width_in, 3),
            lambda: source.array(f"{prefix}.ffn_1.weight") * factor,
            half=True,
        )
        bias = b.weight(f"{prefix}.ffn_1.bias", (width_out,), lambda: source.array(f"{prefix}.ffn_1.bias") * factor)
        mixed = b.transpose(b.conv(b.transpose(x, 0, 2, 1), weight, bias, pads=[1, 1]), 0, 2, 1)
        dense = b.weight(
            f"{prefix}.ffn_2.weight",
            (width_out, width_out),
            lambda: source.array(f"{prefix}.ffn_2.weight").T,
            half=True,
        )
        shift = b.weight(f"{prefix}.ffn_2.bias", (width_out,), lambda: source.array(f"{prefix}.ffn_2.bias"))
        return b.op("Add", b.matmul(mixed, dense), shift, out=out)

    def _blocks(self, x: str, stack: _Stack, count: int, adaln: str, table: str) -> str:
        """Add all blocks of a stack and its modulated layer norm."""
        b = self.b
        with b.fp32_region("time"):
            embedding, modulation = self._modulation(stack, adaln)
        for index in range(count):
            x = self._block(x, stack, f"{_ESTIMATOR}.{stack.prefix}.{index}", modulation)
        with b.fp32_region("time"):
            last = self._table(f"{_ESTIMATOR}.{table}", 2, stack.width, (1,))
            rows = b.op("Add", b.op("Unsqueeze", embedding, b.constant([1])), last)
            shift, scale = b.split(rows, [1, 1], axis=1)  # each [R, 1, D]
        normed = b.layer_norm(x, b.constant(np.ones(stack.width), np.float32), eps=NORM_EPS)
        return b.op("Add", b.op("Mul", normed, scale), shift)

    def _modulation(self, stack: _Stack, adaln: str) -> tuple[str, str]:
        """Add the time embedding [R, D] and its modulation of every block, [R, 6, D] or none."""
        b, width, source = self.b, stack.width, self.source
        embedder = f"{_ESTIMATOR}.{adaln}.emb.timestep_embedder"
        embedding = _dense(b, self.sinusoid, source, f"{embedder}.linear_1", TIME_WIDTH, width)
        embedding = _dense(b, b.silu(embedding), source, f"{embedder}.linear_2", width, width)
        modulation = ""
        if self.sizes.norm_type == "ada_norm_single":
            modulation = _dense(b, b.silu(embedding), source, f"{_ESTIMATOR}.{adaln}.linear", width, 6 * width)
            modulation = b.reshape(modulation, [-1, 6, width])
        return embedding, modulation

    def _block(self, x: str, stack: _Stack, prefix: str, modulation: str) -> str:
        """Add a transformer block; without modulation it is a plain pre-norm block."""
        b = self.b
        if not modulation:
            x = b.add_residual(x, self._attention(self._norm(x, stack, f"{prefix}.attn_norm"), stack, prefix))
            return b.add_residual(x, self._mlp(self._norm(x, stack, f"{prefix}.mlp_norm"), stack, prefix))
        with b.fp32_region("time"):
            rows = b.op("Add", modulation, self._table(f"{prefix}.scale_shift_table", 6, stack.width, (1, 4)))
            shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = b.split(rows, [1] * 6, axis=1)
        normed = b.op("Add", b.op("Mul", self._norm(x, stack, f"{prefix}.attn_norm"), scale_a), shift_a)
        x = b.add_residual(x, b.op("Mul", gate_a, self._attention(normed, stack, prefix)))
        normed = b.op("Add", b.op("Mul", self._norm(x, stack, f"{prefix}.mlp_norm"), scale_m), shift_m)
        return b.add_residual(x, b.op("Mul", gate_m, self._mlp(normed, stack, prefix)))

    def _norm(self, x: str, stack: _Stack, name: str) -> str:
        weight = self.b.weight(f"{name}.weight", (stack.width,), lambda: self.source.array(f"{name}.weight"))
        return self.b.rms_norm(x, weight, NORM_EPS)

    def _heads(self, x: str, stack: _Stack, name: str, scale: float = 1.0) -> str:
        """Add one of the projections, [R, H, T, hd]."""
        factor = np.float32(scale)
        weight = self.b.weight(
            f"{name}.weight",
            (stack.width, stack.width),
            lambda: self.source.array(f"{name}.weight").T * factor,
            half=True,
        )
        return self.b.transpose(self.b.reshape(self.b.matmul(x, weight), [0, 0, -1, stack.head_dim]), 0, 2, 1, 3)

    def _turned(self, heads: str, stack: _Stack) -> str:
        """Apply RoPE to [R, H, T, hd], in float32 at every precision."""
        b = self.b
        with b.fp32_region("rope"):
            turned = b.op("Mul", b.op("MatMul", heads, stack.turn), stack.sin)
            return b.op("Add", b.op("Mul", heads, stack.cos), turned)

    def _attention(self, x: str, stack: _Stack, prefix: str) -> str:
        b = self.b
        query = self._turned(self._heads(x, stack, f"{prefix}.attn.q_proj", stack.head_dim**-0.5), stack)
        key = self._turned(self._heads(x, stack, f"{prefix}.attn.k_proj"), stack)
        value = self._heads(x, stack, f"{prefix}.attn.v_proj")
        scores = b.matmul(query, b.transpose(key, 0, 1, 3, 2))  # [R, H, T, T]
        mixed = b.matmul(b.softmax(scores, 3), value)
        flat = b.reshape(b.transpose(mixed, 0, 2, 1, 3), [0, 0, -1])
        return _dense(b, flat, self.source, f"{prefix}.attn.o_proj", stack.width, stack.width, bias=False)

    def _mlp(self, x: str, stack: _Stack, prefix: str) -> str:
        b, width, hidden = self.b, stack.width, mlp_width(stack.width)
        gate = b.silu(_dense(b, x, self.source, f"{prefix}.mlp.gate", width, hidden, bias=False))
        up = _dense(b, x, self.source, f"{prefix}.mlp.up", width, hidden, bias=False)
        return _dense(b, b.op("Mul", gate, up), self.source, f"{prefix}.mlp.down", hidden, width, bias=False)
