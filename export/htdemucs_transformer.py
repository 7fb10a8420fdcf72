"""Builds the cross-transformer of htdemucs: every second layer attends to the other branch.

Source: demucs 4.1.0, `transformer.CrossTransformerEncoder`.
"""

from __future__ import annotations

import numpy as np

from heartvoice.config.presets import SeparatorConfig
from heartvoice.export.graph_builder import Array, GraphBuilder
from heartvoice.models.load import TensorSource

NORM_EPS = 1e-5


def channel_mean(b: GraphBuilder, x: str, count: int, *, n_axes: int) -> str:
    """Add the mean over the `count` channels of [B, C, ...], with `n_axes` more axes.

    It is a convolution and not a reduction: onnxruntime reduces in a different order for a batch of one, and the
    samples of a segment must not depend on the rest of its batch.
    """
    kernel = [1] * n_axes
    weight = b.constant(np.full((1, count, *kernel), 1 / count), np.float32)
    return b.op("Conv", x, weight, kernel_shape=kernel)


class Transformer:
    """Builds both branches. Tokens are [B, T, D]; in the spectral branch, bins vary fastest."""

    def __init__(
        self,
        b: GraphBuilder,
        sizes: SeparatorConfig,
        source: TensorSource,
        prefix: str,
        grid: tuple[int, int],
        length: int,
    ) -> None:
        """Prepare.

        Args:
            b: takes the nodes.
            sizes: of the network.
            source: its tensors.
            prefix: of their names.
            grid: bins and frames of the spectral branch.
            length: samples of the time branch.
        """
        self.b, self.sizes, self.source, self.prefix = b, sizes, source, prefix
        self.grid, self.length = grid, length
        self.width_in = int(sizes.channels * sizes.growth ** (sizes.depth - 1))
        self.width = sizes.bottom_channels or self.width_in
        self.hidden = int(self.width * sizes.t_hidden_scale)

    def run(self, x: str, xt: str) -> tuple[str, str]:
        """Map [B, C, F, T] and [B, C, T'] to the same shapes."""
        b, (n_bins, n_frames) = self.b, self.grid
        counts = {"": n_bins * n_frames, "_t": self.length}
        x = b.reshape(b.transpose(x, 0, 3, 2, 1), [0, counts[""], self.width_in])
        xt = b.transpose(xt, 0, 2, 1)
        tokens = {"": self._enter(x, ""), "_t": self._enter(xt, "_t")}
        for index in range(self.sizes.t_layers):
            crossing = index % 2 == 1
            tokens = {
                side: self._layer(
                    tokens[side],
                    tokens["_t" if side == "" else ""] if crossing else None,
                    f"layers{side}.{index}",
                    counts[side],
                )
                for side in tokens
            }
        x, xt = self._leave(tokens[""], ""), self._leave(tokens["_t"], "_t")
        x = b.transpose(b.reshape(x, [0, n_frames, n_bins, self.width_in]), 0, 3, 2, 1)
        return x, b.transpose(xt, 0, 2, 1)

    # --------------------------------------------------------------------------------------------------------- pieces

    def _array(self, name: str) -> Array:
        return self.source.array(f"{self.prefix}.{name}")

    def _vector(self, name: str, width: int) -> str:
        return self.b.weight(f"{self.prefix}.{name}", (width,), lambda: self._array(name))

    def _dense(self, x: str, name: str, widths: tuple[int, int], scale: str = "", residual: str | None = None) -> str:
        """Add a linear layer (or convolution of one tap); `scale` names a LayerScale after it."""

        def factor() -> Array:
            return self._array(scale) if scale else np.ones(widths[1], np.float32)

        weight = self.b.weight(
            f"{self.prefix}.{name}.weight",
            widths,
            lambda: self._array(f"{name}.weight").reshape(widths[1], widths[0]).T * factor(),
            half=True,
        )
        bias = self.b.weight(f"{self.prefix}.{name}.bias", (widths[1],), lambda: self._array(f"{name}.bias") * factor())
        return self.b.linear(x, weight, bias, residual=residual)

    def _enter(self, x: str, side: str) -> str:
        """Project to the transformer's width, normalise, add positions."""
        if self.sizes.bottom_channels:
            x = self._dense(x, f"channel_upsampler{side}", (self.width_in, self.width))
        normed = self._layer_norm(x, f"crosstransformer.norm_in{side}")
        return self.b.op("Add", normed, self._positions(side))

    def _leave(self, x: str, side: str) -> str:
        if not self.sizes.bottom_channels:
            return x
        return self._dense(x, f"channel_downsampler{side}", (self.width, self.width_in))

    def _positions(self, side: str) -> str:
        """Declare sines and cosines from the demucs package, because their arguments are float32 and large."""
        (n_bins, n_frames), width = self.grid, self.width
        period = self.sizes.t_max_period

        def spectral() -> Array:
            from demucs.transformer import create_2d_sin_embedding

            table = create_2d_sin_embedding(width, n_bins, n_frames, "cpu", period)[0]  # [D, F, T]
            values: Array = table.permute(2, 1, 0).reshape(n_frames * n_bins, width).numpy()
            return values

        def temporal() -> Array:
            from demucs.transformer import create_sin_embedding

            values: Array = create_sin_embedding(self.length, width, max_period=period)[:, 0].numpy()
            return values

        count = self.length if side else n_bins * n_frames
        # The networks of a bag share the tensor, so the name has no prefix.
        return self.b.weight(f"positions{side}", (count, width), temporal if side else spectral)

    def _layer_norm(self, x: str, name: str) -> str:
        weight, bias = (self._vector(f"{name}.{kind}", self.width) for kind in ("weight", "bias"))
        return self.b.layer_norm(x, weight, bias, eps=NORM_EPS)

    def _layer(self, x: str, other: str | None, name: str, count: int) -> str:
        """Add a layer that attends to its own branch or to the other one."""
        name = f"crosstransformer.{name}"
        query = self._layer_norm(x, f"{name}.norm1")
        if other is None:
            attended, memory, last = "self_attn", query, "norm2"
        else:
            attended, memory, last = "cross_attn", self._layer_norm(other, f"{name}.norm2"), "norm3"
        mixed = self._attention(query, memory, f"{name}.{attended}")
        widths = (self.width, self.width)
        x = self._dense(mixed, f"{name}.{attended}.out_proj", widths, f"{name}.gamma_1.scale", residual=x)
        inner = self._dense(self._layer_norm(x, f"{name}.{last}"), f"{name}.linear1", (self.width, self.hidden))
        inner = self.b.op("Gelu", inner)
        x = self._dense(inner, f"{name}.linear2", (self.hidden, self.width), f"{name}.gamma_2.scale", residual=x)
        with self.b.fp32_region("norm"):
            return self._group_norm(x, f"{name}.norm_out", count)

    def _group_norm(self, x: str, name: str, count: int) -> str:
        """Add a norm over all tokens and features, by sums of sums."""
        b = self.b

        def mean(kind: str, values: str) -> str:
            rows = b.op("Mul", b.op(kind, values, b.constant([2]), keepdims=1), b.constant(1 / self.width, np.float32))
            return channel_mean(b, rows, count, n_axes=1)

        centred = b.op("Sub", x, mean("ReduceSum", x))
        variance = b.op("Add", mean("ReduceSumSquare", centred), b.constant(NORM_EPS, np.float32))
        gain = b.op("Div", self._vector(f"{name}.weight", self.width), b.op("Sqrt", variance))
        return b.op("Add", b.op("Mul", centred, gain), self._vector(f"{name}.bias", self.width))

    # ------------------------------------------------------------------------------------------------------ attention

    def _heads(self, x: str, name: str, part: int, scale: float = 1.0) -> tuple[str, ...]:
        """Add queries, keys or values (0, 1, 2), [B, T, hd] for each head."""
        width, rows = self.width, slice(part * self.width, (part + 1) * self.width)
        factor, label = np.float32(scale), "qkv"[part]
        weight = self.b.weight(
            f"{self.prefix}.{name}.{label}.weight",
            (width, width),
            lambda: self._array(f"{name}.in_proj_weight")[rows].T * factor,
            half=True,
        )
        bias = self.b.weight(
            f"{self.prefix}.{name}.{label}.bias", (width,), lambda: self._array(f"{name}.in_proj_bias")[rows] * factor
        )
        head_dim = width // self.sizes.t_heads
        return self.b.split(self.b.linear(x, weight, bias), [head_dim] * self.sizes.t_heads, axis=2)

    def _attention(self, x: str, memory: str, name: str) -> str:
        """Add the attention of x to the memory, [B, T, D], before the output projection.

        Heads are separate: the scores of one head fit the cache, and those of all heads would be the graph's largest
        tensor.
        """
        b = self.b
        queries = self._heads(x, name, 0, (self.width // self.sizes.t_heads) ** -0.5)
        keys, values = self._heads(memory, name, 1), self._heads(memory, name, 2)
        mixed = []
        for query, key, value in zip(queries, keys, values, strict=True):
            scores = b.matmul(query, b.transpose(key, 0, 2, 1))  # [B, T, T']
            mixed.append(b.matmul(b.softmax(scores, 2), value))
        return b.op("Concat", *mixed, axis=2)
