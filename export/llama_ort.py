"""HeartMuLa's layers in onnxruntime's own operations, the `ort` dialect of `llama_graph`.

GroupQueryAttention applies RoPE, updates the cache and attends in one operation. It reads each row's length and writes
in place where cache input and output share memory. Sum and norm are one operation. Positions are [R, T, E].
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from heartvoice.config.presets import TransformerConfig
from heartvoice.export.graph_builder import Array, GraphBuilder
from heartvoice.export.llama_graph import Floats, KeyValue, merge_heads, mlp, norm, rope_tables
from heartvoice.models.load import TensorSource

DOMAIN = "com.microsoft"


def packed_projection(source: TensorSource, prefix: str, sizes: TransformerConfig) -> Floats:  # noqa: ARG001 (the interface's)
    """Concatenate query, key and value weights, [E, (H + 2 Hkv) * hd]."""
    parts = [source.array(f"{prefix}.{name}_proj.weight") for name in "qkv"]
    return np.ascontiguousarray(np.concatenate(parts).T)


class OrtLayers:
    """One transformer: its weights, its RoPE tables, its layers."""

    def __init__(
        self, b: GraphBuilder, source: TensorSource, prefix: str, sizes: TransformerConfig, positions: int
    ) -> None:
        """Make the RoPE tables of the first `positions` positions."""
        self.b, self.source, self.prefix, self.sizes = b, source, prefix, sizes
        # One column for each pair; only the standard dialect uses the last row of the tables.
        self.cos, self.sin = (b.constant(table[:positions, ::2], np.float32) for table in rope_tables(sizes, positions))

    def run(self, x: str, attend: Callable[[str, int], str]) -> tuple[str, str]:
        """Add all layers.

        Args:
            x: [R, T, E].
            attend: projections [R, T, (H + 2 Hkv) * hd] of the layer with this index to [R, T, H * hd].

        Returns:
            Two values [R, T, E]; `final_norm` adds them to the last layer's output.
        """
        b, source, sizes = self.b, self.source, self.sizes
        branch = ""
        for index in range(sizes.num_layers):
            layer = f"{self.prefix}.layers.{index}"
            if index:
                normed, x = self._add_norm(x, branch, f"{layer}.sa_norm")
            else:
                normed = norm(b, x, source, f"{layer}.sa_norm", sizes)
            branch = merge_heads(b, attend(self._project(normed, layer), index), source, f"{layer}.attn", sizes)
            normed, x = self._add_norm(x, branch, f"{layer}.mlp_norm")
            branch = mlp(b, normed, source, f"{layer}.mlp", sizes)
        return x, branch

    def final_norm(self, x: str, branch: str) -> str:
        """Add the norm of a sum: two values [..., E] to one."""
        return self._add_norm(x, branch, f"{self.prefix}.norm")[0]

    def attention(
        self, projected: str, past: KeyValue | None, present: KeyValue, last: str, total: str
    ) -> tuple[str, KeyValue]:
        """Apply RoPE, append keys and values to the cache, attend.

        Args:
            projected: [R, T, (H + 2 Hkv) * hd].
            past: cache, or None if there is none yet.
            present: names of the cache with the new positions; empty names are generated.
            last: int32 [R], the position of each row's last real new position.
            total: int32 [1], the highest last position of any row plus one, padding included.

        Returns:
            [R, T, H * hd] and the new cache.
        """
        cached = (past.key, past.value) if past else ("", "")
        attended, key, value = self.b.ops(
            "GroupQueryAttention",
            *(projected, "", "", *cached, last, total, self.cos, self.sin),
            outs=("", present.key, present.value),
            domain=DOMAIN,
            do_rotary=1,
            kv_num_heads=self.sizes.num_kv_heads,
            num_heads=self.sizes.num_heads,
            rotary_interleaved=1,
        )
        return attended, KeyValue(key, value)

    def _project(self, normed: str, layer: str) -> str:
        sizes, prefix = self.sizes, f"{layer}.attn"
        columns = (sizes.num_heads + 2 * sizes.num_kv_heads) * sizes.head_dim

        def make() -> Array:
            return packed_projection(self.source, prefix, sizes)

        return self.b.matmul(normed, self.b.weight(f"{prefix}.qkv", (sizes.embed_dim, columns), make, half=True))

    def _add_norm(self, x: str, branch: str, name: str) -> tuple[str, str]:
        """Add a sum and its norm; return the norm, then the sum."""
        sizes = self.sizes
        scale = self.b.weight(f"{name}.scale", (sizes.embed_dim,), lambda: self.source.array(f"{name}.scale"))
        normed, _, _, total = self.b.ops(
            "SkipSimplifiedLayerNormalization",
            *(x, branch, scale),
            outs=("", "", "", ""),
            domain=DOMAIN,
            epsilon=sizes.norm_eps,
        )
        return normed, total
