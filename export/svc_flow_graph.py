"""Builds the ONNX graph of the converter's velocity network.

Contract: `contracts.SVC_FLOW`; the PyTorch twin is `heartvoice.models.seed_vc.dit`.
Source: seed_vc spec, section 9.
"""

from __future__ import annotations

import numpy as np

from heartvoice.config.svc import DitConfig
from heartvoice.contracts.graphs import SVC_FLOW, flow_axes
from heartvoice.export.graph_builder import Array, Graph, GraphBuilder, pinned
from heartvoice.export.layout import BATCH, Precision
from heartvoice.export.llama_graph import quarter_turn
from heartvoice.export.svc_graphs import Dense, attend
from heartvoice.models.load import TensorSource
from heartvoice.models.rope import rope_frequencies
from heartvoice.models.seed_vc.dit import NORM_EPS, ROPE_BASE, TIME_FACTOR, TIME_WIDTH, skip_source

_MERGE = "estimator.cond_x_merge_linear"
_TIME = "estimator.t_embedder"


def build_svc_flow(sizes: DitConfig, source: TensorSource, precision: Precision = "fp32") -> Graph:
    """Build the graph of `contracts.SVC_FLOW`: x, prompt_x [R, T, M], style [R, S], cond [R, T, D'], t [R, 1]."""
    b, axes = GraphBuilder(SVC_FLOW.name, precision), flow_axes(sizes)
    x, prompt_x, style, cond, t = (b.input(pinned(tensor, axes), batch=BATCH) for tensor in SVC_FLOW.inputs)
    output = b.output(pinned(SVC_FLOW.outputs[0], axes), batch=BATCH)
    flow = _Flow(b, sizes, source, n_frames=b.size(x, 1))
    flow.run(flow.merge(x, prompt_x, style, cond), t, output)
    return b.graph


class _Flow:
    """Builds the velocity network part by part."""

    def __init__(self, b: GraphBuilder, sizes: DitConfig, source: TensorSource, *, n_frames: str) -> None:
        self.b, self.sizes, self.source, self.dense = b, sizes, source, Dense(b, source)
        self.width, self.time = sizes.hidden_dim, ""
        theta = np.repeat(rope_frequencies(sizes.head_dim, ROPE_BASE), 2)
        with b.fp32_region("rope"):
            position = b.op("Unsqueeze", b.op("Cast", b.arange(n_frames), to=1), b.constant([1]))
            angle = b.op("Mul", position, b.constant(theta, np.float32))
            self.cos, self.sin = b.op("Cos", angle), b.op("Sin", angle)  # [T, hd]
        self.turn = b.constant(quarter_turn(sizes.head_dim), np.float32)

    def merge(self, x: str, prompt_x: str, style: str, cond: str) -> str:
        """Add the merged input of the layers, [R, T, D]; the style's term is computed once for all frames."""
        b, width, frame = self.b, self.width, 2 * self.sizes.in_channels + self.width
        projected = self.dense.linear(cond, "estimator.cond_projection", self.sizes.content_dim, width)

        def columns(part: slice) -> Array:
            return self.source.array(f"{_MERGE}.weight")[:, part].T

        by_frame = b.weight(f"{_MERGE}.frame", (frame, width), lambda: columns(slice(0, frame)), half=True)
        by_style = b.weight(
            f"{_MERGE}.style", (self.sizes.style_dim, width), lambda: columns(slice(frame, None)), half=True
        )
        whole = b.linear(style, by_style, self.dense.vector(f"{_MERGE}.bias", width))
        joined = b.op("Concat", x, prompt_x, projected, axis=2)
        return b.linear(joined, by_frame, b.op("Unsqueeze", whole, b.constant([1])))

    def run(self, x: str, t: str, output: str) -> None:
        """Map merged frames through the layers to the velocity."""
        b, sizes = self.b, self.sizes
        with b.fp32_region("time"):
            self.time = self._time(t)
        outputs: list[str] = []
        for index in range(sizes.depth):
            skip = skip_source(index, sizes.depth)
            x = self._layer(x, f"estimator.transformer.layers.{index}", None if skip is None else outputs[skip])
            outputs.append(x)
        x = self._norm(x, "estimator.transformer.norm")
        x = b.silu(self.dense.linear(x, "estimator.final_mlp.0", self.width, self.width))
        self.dense.linear(x, "estimator.final_mlp.2", self.width, sizes.in_channels, out=output)

    def _time(self, t: str) -> str:
        """Add the time embedding, times [R, 1] to [R, D]."""
        b, name = self.b, f"{_TIME}.freqs"
        frequency = b.weight(name, (TIME_WIDTH // 2,), lambda: self.source.array(name))
        angle = b.op("Mul", b.op("Mul", t, b.constant(TIME_FACTOR, np.float32)), frequency)
        features = b.op("Concat", b.op("Cos", angle), b.op("Sin", angle), axis=1)
        inner = b.silu(self.dense.linear(features, f"{_TIME}.mlp.0", TIME_WIDTH, self.width))
        return self.dense.linear(inner, f"{_TIME}.mlp.2", self.width, self.width)

    def _norm(self, x: str, name: str) -> str:
        """Add an adaptive norm; its scale has no added 1."""
        b, width = self.b, self.width
        with b.fp32_region("time"):
            both = self.dense.linear(self.time, f"{name}.project_layer", width, 2 * width)
            scale, shift = b.split(b.op("Unsqueeze", both, b.constant([1])), [width, width], axis=2)  # [R, 1, D]
        normed = b.rms_norm(x, self.dense.vector(f"{name}.norm.weight", width), NORM_EPS)
        return b.op("Add", b.op("Mul", normed, scale), shift)

    def _layer(self, x: str, name: str, skip: str | None) -> str:
        b, dense, width, hidden = self.b, self.dense, self.width, self.sizes.ffn_dim
        if skip is not None:
            x = dense.linear(b.op("Concat", x, skip, axis=2), f"{name}.skip_in_linear", 2 * width, width)
        mixed = self._attention(self._norm(x, f"{name}.attention_norm"), f"{name}.attention")
        x = dense.linear(mixed, f"{name}.attention.wo", width, width, bias=False, residual=x)
        normed = self._norm(x, f"{name}.ffn_norm")
        gate = b.silu(dense.linear(normed, f"{name}.feed_forward.w1", width, hidden, bias=False))
        up = dense.linear(normed, f"{name}.feed_forward.w3", width, hidden, bias=False)
        return dense.linear(b.op("Mul", gate, up), f"{name}.feed_forward.w2", hidden, width, bias=False, residual=x)

    def _attention(self, x: str, name: str) -> str:
        """Add the attention before its output projection, [R, T, D]."""
        b, sizes, width = self.b, self.sizes, self.width
        scale = np.repeat(np.array([sizes.head_dim**-0.5, 1, 1], np.float32), width)
        weight = b.weight(
            f"{name}.wqkv.weight",
            (width, 3 * width),
            lambda: self.source.array(f"{name}.wqkv.weight").T * scale,
            half=True,
        )
        heads = b.split(b.matmul(x, weight), [sizes.head_dim] * (3 * sizes.num_heads), axis=2)
        queries, keys = (
            [self._turned(head) for head in heads[part * sizes.num_heads :][: sizes.num_heads]] for part in (0, 1)
        )
        return attend(b, tuple(queries), tuple(keys), heads[2 * sizes.num_heads :])

    def _turned(self, head: str) -> str:
        """Apply RoPE to [R, T, hd], in float32 at every precision."""
        b = self.b
        with b.fp32_region("rope"):
            turned = b.op("Mul", b.op("MatMul", head, self.turn), self.sin)
            return b.op("Add", b.op("Mul", head, self.cos), turned)
