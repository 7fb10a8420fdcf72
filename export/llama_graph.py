"""Graph operations for the layers that HeartMuLa's backbone and depth decoder share.

Source: heartmula spec, section 4; the PyTorch twin is `heartvoice.models.llama`.

Positions are flat, [R * T, E], so every projection is one matrix product. Query, key and value projections are one
weight whose columns are ordered by kv head: the head's group of queries, its key, its value. One reshape then yields
the layout of grouped-query attention, and a key is never repeated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from heartvoice.config.presets import TransformerConfig
from heartvoice.export.graph_builder import Array, GraphBuilder
from heartvoice.models.load import TensorSource
from heartvoice.models.rope import rope_frequencies

Floats = npt.NDArray[np.float32]
NEVER = float(np.finfo(np.float32).min)
"""Added to a masked score: finite, so that no combination of masks yields NaN."""


@dataclass(frozen=True)
class KeyValue:
    """Value names of keys and of values, each [R, Hkv, positions, hd]."""

    key: str
    value: str


def group_size(sizes: TransformerConfig) -> int:
    """Return the number of query heads of one kv head."""
    return sizes.num_heads // sizes.num_kv_heads


def fused_projection(source: TensorSource, prefix: str, sizes: TransformerConfig) -> Floats:
    """Merge query, key and value weights, [E, Hkv * (G + 2) * hd], queries scaled by 1/sqrt(hd)."""
    heads, width = sizes.num_kv_heads, sizes.head_dim

    def part(name: str) -> Floats:
        return source.array(f"{prefix}.{name}_proj.weight").reshape(heads, -1, width, sizes.embed_dim)

    query = part("q") * np.float32(width**-0.5)
    fused = np.concatenate([query, part("k"), part("v")], axis=1)
    return np.ascontiguousarray(fused.reshape(-1, sizes.embed_dim).T)


def rope_tables(sizes: TransformerConfig, positions: int) -> tuple[Floats, Floats]:
    """Return cosines and sines, each [positions + 1, hd]; the last row is the identity, for values.

    Angles are float32 products, as in training. Each angle occurs twice, for both elements of its pair.
    """
    theta = rope_frequencies(sizes.head_dim, sizes.rope_base, sizes.rope_scale_factor)
    angle = np.arange(positions, dtype=np.float32)[:, None] * theta
    wide = np.repeat(angle, 2, axis=1).astype(np.float64)
    still = np.zeros((1, sizes.head_dim))
    cos, sin = np.concatenate([np.cos(wide), still + 1]), np.concatenate([np.sin(wide), still])
    return cos.astype(np.float32), sin.astype(np.float32)


def quarter_turn(width: int) -> Floats:
    """Return the matrix P with (x P)[2j] = -x[2j+1] and (x P)[2j+1] = x[2j].

    The product is exact and, on a CPU, several times faster than a gather of single elements.
    """
    turn = np.zeros((width, width), dtype=np.float32)
    even = np.arange(0, width, 2)
    turn[even + 1, even] = -1
    turn[even, even + 1] = 1
    return turn


def mlp(
    b: GraphBuilder, x: str, source: TensorSource, prefix: str, sizes: TransformerConfig, residual: str | None = None
) -> str:
    """Add `residual + w2(silu(w1 x) * (w3 x))`, gate and up in one product: [..., E] to [..., E]."""
    hidden, width = sizes.intermediate_dim, sizes.embed_dim

    def gate_up() -> Array:
        return np.concatenate([source.array(f"{prefix}.{name}.weight").T for name in ("w1", "w3")], axis=1)

    both = b.matmul(x, b.weight(f"{prefix}.w13", (width, 2 * hidden), gate_up, half=True))
    gate, up = b.split(both, [hidden, hidden], axis=-1)
    down = b.weight(f"{prefix}.w2", (hidden, width), lambda: source.array(f"{prefix}.w2.weight").T, half=True)
    return b.linear(b.op("Mul", b.silu(gate), up), down, residual=residual)


def project_heads(b: GraphBuilder, x: str, source: TensorSource, prefix: str, sizes: TransformerConfig) -> str:
    """Add query, key and value projections: [N, E] to [N, Hkv * (G + 2) * hd]."""
    columns = sizes.num_kv_heads * (group_size(sizes) + 2) * sizes.head_dim
    fused = b.weight(
        f"{prefix}.qkv", (sizes.embed_dim, columns), lambda: fused_projection(source, prefix, sizes), half=True
    )
    return b.matmul(x, fused)


def merge_heads(
    b: GraphBuilder,
    attended: str,
    source: TensorSource,
    prefix: str,
    sizes: TransformerConfig,
    residual: str | None = None,
) -> str:
    """Add `residual + output_proj(attended)`: [..., H * hd] to [..., E]."""
    weight = b.weight(
        f"{prefix}.output_proj",
        (sizes.embed_dim, sizes.embed_dim),
        lambda: source.array(f"{prefix}.output_proj.weight").T,
        half=True,
    )
    return b.linear(attended, weight, residual=residual)


def norm(b: GraphBuilder, x: str, source: TensorSource, name: str, sizes: TransformerConfig) -> str:
    """Add an RMS norm of [N, E] with the checkpoint's scale."""
    scale = b.weight(f"{name}.scale", (sizes.embed_dim,), lambda: source.array(f"{name}.scale"))
    return b.rms_norm(x, scale, sizes.norm_eps)


class BackboneAttention:
    """Attention over a read-only cache and the new positions, in the `standard` dialect.

    Scores of cached and of new keys are concatenated for the softmax, so the cache is never copied.
    """

    def __init__(
        self, b: GraphBuilder, sizes: TransformerConfig, position: str, n_new: str, n_past: str, max_positions: int
    ) -> None:
        """Prepare the values that all layers share.

        Args:
            b: the graph.
            sizes: the backbone's.
            position: int64 [R], cached positions of each row.
            n_new: int64 [1], T.
            n_past: int64 [1], P.
            max_positions: rows of the RoPE table; padding beyond it reads the last one.
        """
        self.sizes, self.group, self.n_past = sizes, group_size(sizes), n_past
        heads, width = sizes.num_kv_heads, sizes.head_dim
        step = b.arange(n_new)
        absolute = b.op("Add", b.op("Unsqueeze", position, b.constant([1])), step)  # [R, T]
        with b.fp32_region("rope"):
            self.cos, self.sin = self._rotation(b, absolute, max_positions)
        self.turn = b.constant(quarter_turn(width), np.float32)
        with b.fp32_region("softmax"):
            self.mask = self._mask(b, position, step)
        self.split_shape = b.op(
            "Concat", b.constant([-1]), n_new, b.constant([heads, self.group + 2, width]), axis=0
        )  # [R, T, Hkv, G + 2, hd]
        self.merge_shape = b.op(
            "Concat", b.constant([0, heads, self.group]), n_new, b.constant([width]), axis=0
        )  # [R, Hkv, G, T, hd]

    def __call__(self, b: GraphBuilder, projected: str, past: KeyValue, new: KeyValue) -> str:
        """Attend: projections [R * T, Hkv * (G + 2) * hd] to [R * T, H * hd]; new keys and values are named `new`."""
        heads = b.transpose(b.op("Reshape", projected, self.split_shape), 0, 2, 3, 1, 4)  # [R, Hkv, G + 2, T, hd]
        # Float32 at every precision: RoPE must not round.
        with b.fp32_region("rope"):
            turned = b.op("Mul", b.op("MatMul", heads, self.turn), self.sin)
            turned = b.op("Add", b.op("Mul", heads, self.cos), turned)
        parts = b.split(turned, [self.group, 1, 1], axis=2)
        names = ("", new.key, new.value)
        query, key, value = (
            b.reshape(part, [0, 0, -1, self.sizes.head_dim], out=name) for part, name in zip(parts, names, strict=True)
        )  # [R, Hkv, G * T, hd] and twice [R, Hkv, T, hd]
        scores = [b.op("MatMul", query, b.transpose(keys, 0, 1, 3, 2)) for keys in (past.key, key)]
        with b.fp32_region("softmax"):
            weights = b.op("Softmax", b.op("Add", b.op("Concat", *scores, axis=3), self.mask), axis=3)
        from_past = b.op("MatMul", b.slice(weights, 0, self.n_past, 3), past.value)
        from_new = b.op("MatMul", b.slice(weights, self.n_past, None, 3), value)
        attended = b.op("Reshape", b.op("Add", from_past, from_new), self.merge_shape)
        return b.reshape(b.transpose(attended, 0, 3, 1, 2, 4), [-1, self.sizes.embed_dim])

    def _rotation(self, b: GraphBuilder, absolute: str, max_positions: int) -> tuple[str, str]:
        """Add cosines and sines for a kv head's queries, key and value, [R, 1, G + 2, T, hd]."""
        inside = b.op("Unsqueeze", b.op("Min", absolute, b.constant(max_positions - 1)), b.constant([1]))
        is_value = np.zeros((1, self.group + 2, 1), dtype=np.bool_)
        is_value[:, -1] = True
        row = b.op("Where", b.constant(is_value, np.bool_), b.constant(max_positions), inside)  # [R, G + 2, T]
        cos, sin = (
            b.op("Unsqueeze", b.op("Gather", b.constant(table, np.float32), row, axis=0), b.constant([1]))
            for table in rope_tables(self.sizes, max_positions)
        )
        return cos, sin

    def _mask(self, b: GraphBuilder, position: str, step: str) -> str:
        """Add the mask of the scores, float32 [R, 1, G * T, P + T]."""
        zero, never = b.constant(0.0, np.float32), b.constant(NEVER, np.float32)
        cached = b.op("Less", b.arange(self.n_past), b.op("Unsqueeze", position, b.constant([1, 2, 3])))
        causal = b.op("LessOrEqual", step, b.op("Unsqueeze", step, b.constant([1])))  # [T, T]: key <= query
        one = b.constant([1])
        queries = b.op("Concat", b.op("Shape", position), one, b.op("Shape", step), one, axis=0)  # [R, 1, T, 1]
        past = b.op("Expand", b.op("Where", cached, zero, never), queries)  # [R, 1, T, P]
        present = b.op("Expand", b.op("Where", causal, zero, never), queries)  # [R, 1, T, T]
        mask = b.op("Concat", past, present, axis=3)
        return mask if self.group == 1 else b.op("Concat", *[mask] * self.group, axis=2)


class DepthAttention:
    """Attention of the depth decoder, with known positions and a cache for one frame.

    Because positions are known, RoPE is a product with a constant matrix for each position.
    """

    def __init__(self, sizes: TransformerConfig, positions: int) -> None:
        """Make the matrices of the first `positions` positions."""
        self.sizes, self.group = sizes, group_size(sizes)
        cos, sin = (table[:positions, None] for table in rope_tables(sizes, positions))
        self.turns = np.eye(sizes.head_dim, dtype=np.float32) * cos + quarter_turn(sizes.head_dim) * sin

    def __call__(
        self, b: GraphBuilder, projected: str, positions: range, cache: KeyValue | None
    ) -> tuple[str, KeyValue]:
        """Attend from consecutive positions.

        Args:
            b: the graph.
            projected: [R * T, Hkv * (G + 2) * hd].
            positions: the T positions; the first follows the cache.
            cache: earlier keys and values of this frame, or None.

        Returns:
            [R * T, H * hd], and the cache with the new positions.
        """
        heads, width, length = self.sizes.num_kv_heads, self.sizes.head_dim, len(positions)
        split = b.reshape(projected, [-1, length, heads, self.group + 2, width])
        turning, value = b.split(split, [self.group + 1, 1], axis=3)
        turn = self.turns[positions.start : positions.stop, None] if length > 1 else self.turns[positions.start]
        with b.fp32_region("rope"):
            turned = b.op("MatMul", turning, b.constant(turn, np.float32))
        query, key = b.split(turned, [self.group, 1], axis=3)
        query = self._rows(b, query, self.group * length, length)
        key, value = (self._rows(b, part, length, length) for part in (key, value))
        if cache is not None:
            key = b.op("Concat", cache.key, key, axis=2)
            value = b.op("Concat", cache.value, value, axis=2)
        scores = b.op("MatMul", query, b.transpose(key, 0, 1, 3, 2))
        with b.fp32_region("softmax"):
            if length > 1:
                scores = b.op("Add", scores, self._mask(b, positions))
            weights = b.op("Softmax", scores, axis=3)
        attended = b.op("MatMul", weights, value)  # [R, Hkv, G * T, hd]
        if length > 1:
            apart = b.reshape(attended, [0, heads, self.group, length, width])
            attended = b.transpose(apart, 0, 3, 1, 2, 4)
        return b.reshape(attended, [-1, self.sizes.embed_dim]), KeyValue(key, value)

    def _rows(self, b: GraphBuilder, part: str, rows: int, length: int) -> str:
        """Reorder [R, T, Hkv, n, hd] to [R, Hkv, n * T = rows, hd]."""
        ordered = part if length == 1 else b.transpose(part, 0, 2, 3, 1, 4)
        return b.reshape(ordered, [-1, self.sizes.num_kv_heads, rows, self.sizes.head_dim])

    def _mask(self, b: GraphBuilder, positions: range) -> str:
        """Add the causal mask of the queries, [G * T, positions.stop]."""
        visible = np.arange(positions.stop) <= np.asarray(positions)[:, None]
        return b.constant(np.tile(np.where(visible, 0.0, NEVER), (self.group, 1)), np.float32)
