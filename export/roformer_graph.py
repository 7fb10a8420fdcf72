"""Builds the graph of a RoFormer separator: features of a fixed number of frames to masks.

The PyTorch twin is `heartvoice.models.roformer.network`. Differences from it:

- Rotary tables are constants. The pairs of queries and keys are put apart, the first values before the second ones:
  both are permuted alike, so their products do not change.
- The gate of a mask estimator is a layer of its own, so that nothing is cut.
- The norm has its floor inside the root, the form that runtimes fuse; it differs below a length of 1e-9 only.

Source: roformer spec, sections 3 and 5.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from heartvoice.config.roformer import RoformerConfig
from heartvoice.contracts.models import ROFORMER
from heartvoice.export.graph_builder import Array, Graph, GraphBuilder, pinned
from heartvoice.export.layout import BATCH, Precision, separator_axes
from heartvoice.models.load import TensorSource
from heartvoice.models.roformer.bands import overlap_table
from heartvoice.models.roformer.network import EXPANSION, NORM_FLOOR


def build_roformer(
    sizes: RoformerConfig, source: TensorSource, precision: Precision = "fp32", *, n_frames: int | None = None
) -> Graph:
    """Build the graph of `contracts.ROFORMER`: features [B, T, V] to masks [B, stems, T, V], V = bins * channels * 2.

    Args:
        sizes: of the network.
        source: its tensors.
        precision: of its products.
        n_frames: T, which the graph fixes; default that of a chunk.
    """
    return _Roformer(sizes, source, precision, n_frames or sizes.n_frames).build()


class _Roformer:
    def __init__(self, sizes: RoformerConfig, source: TensorSource, precision: Precision, n_frames: int) -> None:
        self.b, self.sizes, self.source, self.n_frames = GraphBuilder(ROFORMER.name, precision), sizes, source, n_frames
        self.n_bands, self.table = len(sizes.bands), overlap_table(sizes)

    def build(self) -> Graph:
        b, sizes = self.b, self.sizes
        axes = separator_axes(sizes) | {"chunk_frame": self.n_frames}
        features = b.input(pinned(ROFORMER.inputs[0], axes), batch=BATCH)
        output = b.output(pinned(ROFORMER.outputs[0], axes), batch=BATCH)
        x = self._band_split(features)  # [B, T, bands, dim]
        for layer in range(sizes.depth):
            x = b.reshape(b.transpose(x, 0, 2, 1, 3), [-1, self.n_frames, sizes.dim])
            x = self._transformer(x, f"layers.{layer}.0", sizes.time_transformer_depth, self.n_frames)
            x = b.transpose(b.reshape(x, [-1, self.n_bands, self.n_frames, sizes.dim]), 0, 2, 1, 3)
            x = b.reshape(x, [-1, self.n_bands, sizes.dim])
            x = self._transformer(x, f"layers.{layer}.1", sizes.freq_transformer_depth, self.n_bands)
            x = b.reshape(x, [-1, self.n_frames, self.n_bands, sizes.dim])
        if sizes.kind == "bs":
            x = self._norm(x, "final_norm", sizes.dim)
        bands = [b.op("Squeeze", band, b.constant([2])) for band in b.split(x, [1] * self.n_bands, 2)]
        masks = [b.op("Unsqueeze", self._mask(bands, stem), b.constant([1])) for stem in range(len(sizes.stems))]
        b.op("Concat", *masks, axis=1, out=output)
        return b.graph

    # -------------------------------------------------------------------------------------------------------- bands

    def _band_split(self, features: str) -> str:
        b, parts = self.b, []
        for band, (start, end) in enumerate(self.sizes.band_features):
            name, width = f"band_split.to_features.{band}", end - start
            x = self._norm(b.slice(features, start, end, 2), f"{name}.0", width)
            x = self._linear(x, f"{name}.1", (width, self.sizes.dim))
            parts.append(b.op("Unsqueeze", x, b.constant([2])))
        return b.op("Concat", *parts, axis=2)

    def _mask(self, bands: list[str], stem: int) -> str:
        """Add one stem's estimators: [B, T, dim] of each band to [B, T, V]."""
        b, dim = self.b, self.sizes.dim
        parts = []
        for band, (start, end) in enumerate(self.sizes.band_features):
            name, x, width = f"mask_estimators.{stem}.to_freqs.{band}.0", bands[band], dim
            for layer in range(self.sizes.mask_layers - 1):
                x = b.op("Tanh", self._linear(x, f"{name}.{2 * layer}", (width, EXPANSION * dim)))
                width = EXPANSION * dim
            last, n_values = f"{name}.{2 * self.sizes.mask_layers - 2}", end - start
            value, gate = (
                self._linear(x, last, (width, n_values), rows=slice(half * n_values, (half + 1) * n_values))
                for half in range(2)
            )
            parts.append(b.op("Mul", value, b.op("Sigmoid", gate)))
        return self._joined(b.op("Concat", *parts, axis=2))

    def _joined(self, values: str) -> str:
        """Average the values of bands that share a bin."""
        if not self.table.overlaps:
            return values
        b, n_values, total = self.b, sum(end - start for start, end in self.sizes.band_features), ""
        for row in self.table.indices:
            held = row < n_values
            share = b.constant(held / self.table.counts, np.float32)
            picked = b.op("Gather", values, b.constant(np.where(held, row, 0)), axis=2)
            weighted = b.op("Mul", picked, share)
            total = b.op("Add", total, weighted) if total else weighted
        return total

    # -------------------------------------------------------------------------------------------------- transformer

    def _transformer(self, x: str, name: str, depth: int, length: int) -> str:
        """Add layers over sequences [N, length, dim]."""
        for layer in range(depth):
            x = self._attention(x, f"{name}.layers.{layer}.0", length)
            x = self._feed_forward(x, f"{name}.layers.{layer}.1.net")
        return self._norm(x, f"{name}.norm", self.sizes.dim) if self.sizes.kind == "mel" else x

    def _attention(self, x: str, name: str, length: int) -> str:
        b, sizes = self.b, self.sizes
        width, heads = sizes.heads * sizes.dim_head, [0, length, sizes.heads, sizes.dim_head]
        normed = self._norm(x, f"{name}.norm", sizes.dim)
        q, k = (self._rotated(normed, name, part, length) for part in range(2))
        v = self._linear(normed, f"{name}.to_qkv", (sizes.dim, width), rows=slice(2 * width, 3 * width), bias=False)
        scores = b.matmul(b.transpose(q, 0, 2, 1, 3), b.transpose(k, 0, 2, 3, 1))
        mixed = b.matmul(b.softmax(scores, -1), b.transpose(b.reshape(v, heads), 0, 2, 1, 3))
        gates = b.op("Sigmoid", self._linear(normed, f"{name}.to_gates", (sizes.dim, sizes.heads)))
        gated = b.op("Mul", b.transpose(mixed, 0, 2, 1, 3), b.op("Unsqueeze", gates, b.constant([3])))
        out = self._linear(b.reshape(gated, [0, length, width]), f"{name}.to_out.0", (width, sizes.dim), bias=False)
        return b.add_residual(x, out)

    def _rotated(self, normed: str, name: str, part: int, length: int) -> str:
        """Add queries (`part` 0, divided by the root of their width) or keys (1): [N, length, heads, dim_head]."""
        b, sizes = self.b, self.sizes
        width, half = sizes.heads * sizes.dim_head, sizes.dim_head // 2
        order = np.arange(width).reshape(sizes.heads, half, 2).swapaxes(1, 2).reshape(-1)
        scale = np.float32(1 if part else 1 / math.sqrt(sizes.dim_head))
        rows = part * width + order
        x = self._linear(normed, f"{name}.to_qkv", (sizes.dim, width), rows=rows, bias=False, scale=scale)
        first, second = b.split(b.reshape(x, [0, length, sizes.heads, sizes.dim_head]), [half, half], 3)
        cos, sin = (self._rotary(name, length, function) for function in (np.cos, np.sin))
        turned = b.op("Sub", b.op("Mul", first, cos), b.op("Mul", second, sin))
        return b.op("Concat", turned, b.op("Add", b.op("Mul", second, cos), b.op("Mul", first, sin)), axis=3)

    def _rotary(self, name: str, length: int, function: Callable[[Array], Array]) -> str:
        """Declare cosines or sines of all positions, [length, 1, dim_head / 2]."""

        def make() -> Array:
            freqs = self.source.array(f"{name}.rotary_embed.freqs").astype(np.float32)
            angle = np.arange(length, dtype=np.float32)[:, None, None] * freqs
            return function(angle)

        label = f"{name}.rotary_embed.{getattr(function, '__name__', '')}"
        return self.b.weight(label, (length, 1, self.sizes.dim_head // 2), make)

    def _feed_forward(self, x: str, name: str) -> str:
        dim = self.sizes.dim
        h = self._linear(self._norm(x, f"{name}.0", dim), f"{name}.1", (dim, EXPANSION * dim))
        return self.b.add_residual(x, self._linear(self.b.op("Gelu", h), f"{name}.4", (EXPANSION * dim, dim)))

    # ------------------------------------------------------------------------------------------------------- layers

    def _norm(self, x: str, name: str, dim: int) -> str:
        gamma = self.b.weight(f"{name}.gamma", (dim,), lambda: self.source.array(f"{name}.gamma"))
        return self.b.rms_norm(x, gamma, NORM_FLOOR**2 / dim)

    def _linear(
        self,
        x: str,
        name: str,
        shape: tuple[int, int],
        *,
        rows: slice | Array | None = None,
        bias: bool = True,
        scale: np.float32 | None = None,
    ) -> str:
        """Add a linear layer of the checkpoint, or some of its outputs; `shape` is [in, out]."""
        chosen = slice(None) if rows is None else rows
        label = "" if rows is None else f".{rows.start if isinstance(rows, slice) else int(rows[0])}"

        def make() -> Array:
            weight = self.source.array(f"{name}.weight")[chosen]
            return np.ascontiguousarray((weight if scale is None else weight * scale).T)

        matrix = self.b.weight(f"{name}.weight{label}", shape, make, half=True)
        if not bias:
            return self.b.linear(x, matrix)
        shift = self.b.weight(f"{name}.bias{label}", shape[1:], lambda: self.source.array(f"{name}.bias")[chosen])
        return self.b.linear(x, matrix, shift)
