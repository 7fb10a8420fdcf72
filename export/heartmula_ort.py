"""Builds HeartMuLa as one graph of onnxruntime's own operations, the engine for CPUs.

Contract: `contracts.graphs.heartmula_step_ort`. `heartmula_graph` builds everything except the layers: rows,
embeddings, the unrolled frame and the sampler.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from onnx import TensorProto

from heartvoice.config.presets import HeartMuLaConfig, Preset
from heartvoice.contracts.graphs import heartmula_step_ort
from heartvoice.contracts.types import Axis, TensorSpec
from heartvoice.export.graph_builder import Graph, GraphBuilder
from heartvoice.export.heartmula_graph import Depth, Rows, StepGraph
from heartvoice.export.llama_graph import KeyValue
from heartvoice.export.llama_ort import OrtLayers
from heartvoice.export.quantize import NOTHING, Quantization, QuantizedBuilder
from heartvoice.models.load import TensorSource


def build_heartmula_ort(
    preset: Preset, source: TensorSource, quantization: Quantization = NOTHING, *, taught: bool = False
) -> Graph:
    """Build the graph of `contracts.graphs.heartmula_step_ort`.

    Args:
        preset: sizes, EOS id and the number of positions that RoPE covers.
        source: the checkpoint, official key names.
        quantization: weights to store in few bits; the rest is float32.
        taught: add the input `teacher`, int64 [S, 8]: codes that replace the drawn ones in the depth decoder's input;
            -1 keeps the drawn one. For measurements, not for serving.
    """
    spec = heartmula_step_ort(preset.lm.backbone.num_layers)
    kind = OrtGraph
    if taught:
        kind = _TaughtGraph
        teacher = TensorSpec("teacher", "INT64", (Axis("song"), preset.lm.audio_num_codebooks))
        spec = replace(spec, inputs=(*spec.inputs, teacher))
    return kind(preset, source, spec, QuantizedBuilder(spec.name, quantization)).build()


class OrtGraph(StepGraph):
    """The step with fused attention and norms."""

    def backbone(self, x: str, rows: Rows) -> str:
        """Add the backbone: embeddings [R * T, E] to final-norm outputs at each row's last real position, [R, E]."""
        b, sizes = self.b, self.sizes.backbone
        layers = OrtLayers(b, self.source, "backbone", sizes, self.preset.max_positions)
        one, n_new = b.constant([1]), b.size("text_ids", 1)
        after = b.op("Add", "position", b.op("Gather", "n_new", rows.song))
        last = b.op("Cast", b.op("Sub", after, one), to=int(TensorProto.INT32))
        highest = b.op("ReduceMax", "position", b.constant([0]), keepdims=1)
        total = b.op("Cast", b.op("Add", highest, n_new), to=int(TensorProto.INT32))

        def attend(projected: str, index: int) -> str:
            past = KeyValue(f"k_past_{index}", f"v_past_{index}")
            present = KeyValue(f"k_present_{index}", f"v_present_{index}")
            return layers.attention(projected, past, present, last, total)[0]

        apart = b.op("Concat", b.constant([-1]), n_new, b.constant([sizes.embed_dim]), axis=0)
        flat = [b.reshape(part, [-1, sizes.embed_dim]) for part in layers.run(b.op("Reshape", x, apart), attend)]
        return layers.final_norm(*(b.op("Gather", part, rows.last, axis=0) for part in flat))

    def depth(self) -> Depth:
        """Return the depth decoder before its first pass."""
        return _OrtDepth(self.b, self.source, self.sizes)


class _OrtDepth(Depth):
    """The depth decoder with fused attention; its cache starts empty and grows by one position a pass."""

    def __init__(self, b: GraphBuilder, source: TensorSource, sizes: HeartMuLaConfig) -> None:
        super().__init__(b, source, sizes)
        self.layers = OrtLayers(b, source, "decoder", sizes.decoder, sizes.audio_num_codebooks)

    def run(self, entering: str, *, first: bool) -> str:
        """Add a pass: embeddings [R * T, backbone width] to the last position's final norm [R, decoder width]."""
        b, width = self.b, self.sizes.decoder.embed_dim
        positions = self.advance(first=first)
        rows = b.op("Shape", "row_song")
        last = b.op("Expand", b.constant(positions.stop - 1, np.int32), rows)
        total = b.constant([positions.stop], np.int32)

        def attend(projected: str, index: int) -> str:
            attended, self.cache[index] = self.layers.attention(
                projected, self.cache[index], KeyValue("", ""), last, total
            )
            return attended

        x = b.reshape(b.matmul(entering, self.projection()), [-1, len(positions), width])
        ends = self.layers.run(x, attend)
        return self.layers.final_norm(*(b.op("Squeeze", b.slice(x, -1, None, 1), b.constant([1])) for x in ends))


class _TaughtGraph(OrtGraph):
    """The step with teacher forcing of the depth decoder."""

    def fed(self, drawn: str, book: int) -> str:
        """Return the teacher's codes, or the drawn ones where the teacher has -1."""
        b = self.b
        taught = b.op("Gather", "teacher", b.constant(book), axis=1)
        return b.op("Where", b.op("Less", taught, b.constant(0)), drawn, taught)
