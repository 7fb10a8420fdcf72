"""Graph operations of the sampler: guidance, forbidden ids, top-k with ties, inverse CDF.

The PyTorch twin is `heartvoice.models.sampling`. Source: heartmula spec, sections 6 and 7; design decision 13.
"""

from __future__ import annotations

import numpy as np

from heartvoice.config.presets import HeartMuLaConfig
from heartvoice.export.graph_builder import GraphBuilder


class Sampler:
    """Draws one code per song from the rows' logits, one codebook per call."""

    def __init__(self, b: GraphBuilder, sizes: HeartMuLaConfig, eos_id: int) -> None:
        """Prepare shared values from the graph inputs, which have the names of `HeartMuLa.step`'s arguments."""
        self.b = b
        one = b.constant([1])
        ids = np.arange(sizes.audio_vocab_size)
        forbidden = np.where(ids < sizes.codebook_size, 0.0, -np.inf)
        with_eos = np.where(ids == eos_id, 0.0, forbidden)
        allow = b.op("Unsqueeze", "allow_eos", one)
        self.bias = b.op("Where", allow, b.constant(with_eos, np.float32), b.constant(forbidden, np.float32))  # [S, V]
        self.temperature = b.op("Unsqueeze", "temperature", one)
        self.scale = b.op("Unsqueeze", "cfg_scale", one)
        k = b.op("Min", "top_k", b.constant(sizes.audio_vocab_size))
        self.widest = b.op("ReduceMax", k, b.constant([0]), keepdims=1)
        self.last_kept = b.op("Unsqueeze", b.op("Sub", k, one), one)  # [S, 1]
        self.uniform = b.split("uniform", [1] * sizes.audio_num_codebooks, axis=1)  # each [S, 1]

    def draw(self, raw: str, book: int) -> tuple[str, str]:
        """Guide and draw.

        Args:
            raw: float32 [R, V], a head's logits.
            book: the codebook, which selects the uniform number.

        Returns:
            Guided logits [S, V] and ids int64 [S].
        """
        b = self.b
        conditional, blank = (b.op("Gather", raw, row, axis=0) for row in ("cond_row", "uncond_row"))
        guided = b.op("Add", blank, b.op("Mul", self.scale, b.op("Sub", conditional, blank)))
        scaled = b.op("Div", b.op("Add", guided, self.bias), self.temperature)
        largest, _ = b.ops("TopK", scaled, self.widest, outs=("", ""), axis=1)
        threshold = b.op("GatherElements", largest, self.last_kept, axis=1)  # all ties at rank k stay
        odds = b.op("Exp", b.op("Sub", scaled, b.slice(largest, 0, 1, 1)))
        kept = b.op("Where", b.op("GreaterOrEqual", scaled, threshold), odds, b.constant(0.0, np.float32))
        cumulative = b.op("CumSum", kept, b.constant(1))
        target = b.op("Mul", self.uniform[book], b.slice(cumulative, -1, None, 1))
        passed = b.op("Cast", b.op("LessOrEqual", cumulative, target), to=7)  # int64
        return guided, b.op("ReduceSum", passed, b.constant([1]), keepdims=0)
