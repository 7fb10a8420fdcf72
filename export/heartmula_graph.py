"""Builds HeartMuLa as one ONNX graph for prompt and frame, with sampling.

Contract: `graphs.heartmula_step`; the PyTorch twin is `heartvoice.models.heartmula.HeartMuLa.step`. The graph is the
`standard` dialect of design decision 12: plain attention, norms spelled out, new keys and values as outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from heartvoice.config.presets import HeartMuLaConfig, Preset
from heartvoice.contracts.graphs import heartmula_step
from heartvoice.contracts.types import ModelSpec
from heartvoice.export.graph_builder import Array, Graph, GraphBuilder, pinned
from heartvoice.export.layout import Precision, lm_axes
from heartvoice.export.llama_graph import (
    BackboneAttention,
    DepthAttention,
    KeyValue,
    merge_heads,
    mlp,
    norm,
    project_heads,
)
from heartvoice.export.sampling_graph import Sampler
from heartvoice.models.load import TensorSource


def build_heartmula_step(preset: Preset, source: TensorSource, precision: Precision = "fp32") -> Graph:
    """Build the graph of `contracts.graphs.heartmula_step`.

    Args:
        preset: sizes, EOS id and the number of positions that RoPE covers.
        source: the checkpoint, official key names.
        precision: fp16 stores weights in half and multiplies in half; inputs, outputs and cache stay float32.
    """
    spec = heartmula_step(preset.lm.backbone.num_layers)
    return StepGraph(preset, source, spec, GraphBuilder(spec.name, precision)).build()


@dataclass(frozen=True)
class Rows:
    """Value names that map rows to songs."""

    song: str
    """int64 [R]."""
    unconditional: str
    """bool [R, 1, 1]."""
    last: str
    """int64 [R]: each row's last real position in the flat [R * T]."""


class StepGraph:
    """Builds the graph part by part; another dialect overrides `backbone` and `depth`."""

    def __init__(self, preset: Preset, source: TensorSource, spec: ModelSpec, b: GraphBuilder) -> None:
        """Start.

        Args:
            preset: as `build_heartmula_step` takes it.
            source: likewise.
            spec: inputs and outputs.
            b: an empty graph.
        """
        self.preset, self.sizes, self.source, self.spec, self.b = preset, preset.lm, source, spec, b
        self._heads: Array | None = None
        """`audio_head`, read once for all codebooks while the graph is written."""

    def build(self) -> Graph:
        """Build the whole graph."""
        axes = lm_axes(self.sizes)
        for spec in self.spec.inputs:
            self.b.input(pinned(spec, axes))
        for spec in self.spec.outputs:
            self.b.output(pinned(spec, axes))
        rows = self._rows()
        hidden = self.backbone(self._embed(rows), rows)
        self._frame(hidden, rows)
        return self.b.graph

    # ------------------------------------------------------------------------------------------------ embeddings

    def _rows(self) -> Rows:
        b = self.b
        count = b.op("Shape", "row_song")
        row = b.arange(count)
        conditional = b.op("Gather", "cond_row", "row_song")
        unconditional = b.op("Not", b.op("Equal", conditional, row))
        start = b.op("Mul", row, b.size("text_ids", 1))
        last = b.op("Add", start, b.op("Gather", b.op("Sub", "n_new", b.constant(1)), "row_song"))
        return Rows("row_song", b.op("Unsqueeze", unconditional, b.constant([1, 2])), last)

    def _embed(self, rows: Rows) -> str:
        """Add the embeddings of the new positions of every row, [R * T, E]."""
        b, source = self.b, self.source
        width = self.sizes.backbone.embed_dim
        table = b.weight(
            "text_embeddings.weight",
            (self.sizes.text_vocab_size, width),
            lambda: source.array("text_embeddings.weight"),
            half=True,
        )
        text = b.embed(table, b.op("Max", "text_ids", b.constant(0)))  # [S, T, E]
        style = b.op("Unsqueeze", self._style(), b.constant([1]))
        step = b.arange(b.size("text_ids", 1))
        slot = b.op("Equal", step, b.op("Unsqueeze", "style_index", b.constant([1])))
        text = b.op("Where", b.op("Unsqueeze", slot, b.constant([2])), style, text)
        blank = b.weight(
            "unconditional_text_embedding.weight",
            (1, width),
            lambda: source.array("unconditional_text_embedding.weight"),
        )
        text = b.op("Where", rows.unconditional, blank, b.op("Gather", text, rows.song, axis=0))
        is_frame = b.op("Unsqueeze", b.op("Less", "text_ids", b.constant(0)), b.constant([2]))
        frame = b.op("Unsqueeze", self._previous_frame(), b.constant([1]))
        is_frame, frame = (b.op("Gather", value, rows.song, axis=0) for value in (is_frame, frame))
        return b.reshape(b.op("Where", is_frame, frame, text), [-1, width])

    def _style(self) -> str:
        b, source, sizes = self.b, self.source, self.sizes
        weight = b.weight(
            "muq_linear.weight",
            (sizes.muq_dim, sizes.backbone.embed_dim),
            lambda: source.array("muq_linear.weight").T,
            half=True,
        )
        bias = b.weight("muq_linear.bias", (sizes.backbone.embed_dim,), lambda: source.array("muq_linear.bias"))
        return b.linear("style", weight, bias)

    def _audio_table(self) -> str:
        sizes, source = self.sizes, self.source
        shape = (sizes.audio_num_codebooks * sizes.audio_vocab_size, sizes.backbone.embed_dim)
        return self.b.weight(
            "audio_embeddings.weight", shape, lambda: source.array("audio_embeddings.weight"), half=True
        )

    def _previous_frame(self) -> str:
        """Add the sum of the eight code embeddings, [S, E]."""
        b = self.b
        first = (np.arange(self.sizes.audio_num_codebooks) * self.sizes.audio_vocab_size)[:, None]
        # Codebooks are the first axis: only then does onnxruntime sum in the same order for one song and for several.
        embedded = b.embed(self._audio_table(), b.op("Add", b.transpose("codes", 1, 0), b.constant(first)))
        with b.fp32_region("lookup"):
            return b.op("ReduceSum", embedded, b.constant([0]), keepdims=0)  # [K, S, E] -> [S, E]

    # -------------------------------------------------------------------------------------------------- backbone

    def backbone(self, x: str, rows: Rows) -> str:
        """Add the backbone: embeddings [R * T, E] to final-norm outputs at each row's last real position, [R, E]."""
        b, source, sizes = self.b, self.source, self.sizes.backbone
        n_past = b.size("k_past_0", 2)
        attention = BackboneAttention(b, sizes, "position", b.size("text_ids", 1), n_past, self.preset.max_positions)
        for index in range(sizes.num_layers):
            prefix = f"backbone.layers.{index}"
            past = KeyValue(f"k_past_{index}", f"v_past_{index}")
            new = KeyValue(f"k_new_{index}", f"v_new_{index}")
            projected = project_heads(
                b, norm(b, x, source, f"{prefix}.sa_norm", sizes), source, f"{prefix}.attn", sizes
            )
            x = merge_heads(b, attention(b, projected, past, new), source, f"{prefix}.attn", sizes, x)
            x = mlp(b, norm(b, x, source, f"{prefix}.mlp_norm", sizes), source, f"{prefix}.mlp", sizes, x)
        return norm(b, b.op("Gather", x, rows.last, axis=0), source, "backbone.norm", sizes)

    def depth(self) -> Depth:
        """Return the depth decoder before its first pass."""
        return Depth(self.b, self.source, self.sizes)

    # ------------------------------------------------------------------------------------------------------ frame

    def fed(self, drawn: str, book: int) -> str:  # noqa: ARG002 (the interface's)
        """Return the codes [S] of one codebook that condition the next codebooks: the drawn ones."""
        return drawn

    def _frame(self, hidden: str, rows: Rows) -> None:
        """Draw the eight codes; the outputs are `logits` and `next_codes`, -1 for songs whose logits are not finite."""
        b, sizes = self.b, self.sizes
        books, width = sizes.audio_num_codebooks, sizes.backbone.embed_dim
        with b.fp32_region("sampling"):
            sampler = Sampler(b, sizes, self.preset.ids.audio_eos_id)
        depth = self.depth()
        codes: list[str] = []
        fed = ""
        logits: list[str] = []
        for book in range(books):
            if book == 0:
                raw = b.matmul(hidden, self._head(0))
            else:
                code = b.op("Add", b.op("Gather", fed, rows.song), b.constant((book - 1) * sizes.audio_vocab_size))
                entering = b.embed(self._audio_table(), code)  # [R, E]
                if book == 1:  # the first pass takes positions 0 and 1
                    entering = b.reshape(b.op("Concat", hidden, entering, axis=1), [-1, width])
                raw = b.matmul(depth.run(entering, first=book == 1), self._head(book))
            with b.fp32_region("sampling"):
                guided, drawn = sampler.draw(raw, book)
            codes.append(drawn)
            fed = self.fed(drawn, book)
            logits.append(b.op("Unsqueeze", guided, b.constant([1])))
        columns = [b.op("Unsqueeze", code, b.constant([1])) for code in codes]
        frame = b.op("Concat", *columns, axis=1)
        with b.fp32_region("sampling"):
            total = b.op("ReduceSum", b.op("Concat", *logits, axis=1, out="logits"), b.constant([1, 2]), keepdims=1)
            finite = b.op("Less", b.op("Abs", b.reshape(total, [-1, 1])), b.constant(np.inf, np.float32))
            b.op("Where", finite, frame, b.constant(-1), out="next_codes")

    def _head(self, book: int) -> str:
        """Declare the head of a codebook, [width, V]."""
        source, sizes = self.source, self.sizes
        if book == 0:
            shape = (sizes.backbone.embed_dim, sizes.audio_vocab_size)
            return self.b.weight(
                "codebook0_head.weight", shape, lambda: source.array("codebook0_head.weight").T, half=True
            )
        shape = (sizes.decoder.embed_dim, sizes.audio_vocab_size)

        def make() -> Array:
            if self._heads is None:
                self._heads = source.array("audio_head")
            head: Array = self._heads[book - 1]
            if book == sizes.audio_num_codebooks - 1:
                self._heads = None
            return head

        return self.b.weight(f"audio_head.{book - 1}", shape, make, half=True)


class Depth:
    """The depth decoder, unrolled: each call adds one pass over the same weights."""

    def __init__(self, b: GraphBuilder, source: TensorSource, sizes: HeartMuLaConfig) -> None:
        """Start a frame at position 0."""
        self.b, self.source, self.sizes = b, source, sizes
        self.attention = DepthAttention(sizes.decoder, sizes.audio_num_codebooks)
        self.cache: list[KeyValue | None] = [None] * sizes.decoder.num_layers
        self.position = 0

    def advance(self, *, first: bool) -> range:
        """Return the positions of the next pass: two in the first, one in the others."""
        positions = range(self.position, self.position + (2 if first else 1))
        self.position = positions.stop
        return positions

    def projection(self) -> str:
        """Declare the projection of the input embeddings, [backbone width, decoder width]."""
        shape = (self.sizes.backbone.embed_dim, self.sizes.decoder.embed_dim)
        return self.b.weight("projection.weight", shape, lambda: self.source.array("projection.weight").T, half=True)

    def run(self, entering: str, *, first: bool) -> str:
        """Add a pass: embeddings [R * T, backbone width] to the last position's final norm [R, decoder width]."""
        b, source, sizes = self.b, self.source, self.sizes.decoder
        positions = self.advance(first=first)
        x = b.matmul(entering, self.projection())
        for index in range(sizes.num_layers):
            prefix = f"decoder.layers.{index}"
            projected = project_heads(
                b, norm(b, x, source, f"{prefix}.sa_norm", sizes), source, f"{prefix}.attn", sizes
            )
            attended, self.cache[index] = self.attention(b, projected, positions, self.cache[index])
            x = merge_heads(b, attended, source, f"{prefix}.attn", sizes, x)
            x = mlp(b, norm(b, x, source, f"{prefix}.mlp_norm", sizes), source, f"{prefix}.mlp", sizes, x)
        if first:
            x = b.op("Squeeze", b.slice(b.reshape(x, [-1, 2, sizes.embed_dim]), 1, 2, 1), b.constant([1]))
        return norm(b, x, source, "decoder.norm", sizes)
