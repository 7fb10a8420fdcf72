"""Code vectors that say at first what the score encoder's tables say, each book in dimensions of its own.

Random vectors of shared dimensions teach the flow next to nothing: it has to find out what every id means.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from heartvoice.models.heartcodec.flow import FlowMatching
from train.demo import layout
from train.demo.codec_network import codebooks
from train.demo.score_encoder import N_NOTES, ScoreEncoder

SHARES: dict[int, float] = {
    layout.ATOM_1: 0.24, layout.ATOM_2: 0.24, layout.NOTE: 0.16, layout.CHORD: 0.13, layout.LEAD: 0.1, layout.LOW: 0.11,
    layout.CLOCK: 0.02,
}  # fmt: skip
"""Share of the vectors' dimensions that each book has. The cursor has none: words make no sound of their own."""


@torch.no_grad()
def start_code_vectors(flow: FlowMatching, encoder: ScoreEncoder) -> None:
    """Set all code vectors, and make the projections behind them the identity."""
    width = flow.sizes.codebook_dim
    at = 0
    books = [codebook.embed[0] for codebook in codebooks(flow)]
    for vectors in books:
        vectors.zero_()
    for book, share in SHARES.items():
        table = _tables(encoder, book)
        n_dims = min(max(1, int(share * width)), table.shape[1])
        books[book][: len(table), at : at + n_dims] = _leading(table, n_dims)
        at += n_dims
    for layer in (flow.cond_feature_emb, flow.vq_embed.project_out):
        if layer is not None:
            nn.init.eye_(layer.weight)
            nn.init.zeros_(layer.bias)


def _tables(encoder: ScoreEncoder, book: int) -> Tensor:
    """What the encoder knows of each id of a book, [ids, values]."""
    if book == layout.CLOCK:
        return torch.where(encoder.clock_parity > 0, 1.0, -1.0)[:, None]
    if book in (layout.ATOM_1, layout.ATOM_2):
        return encoder.atoms.view(2, layout.N_ATOMS, -1)[book - layout.ATOM_1]
    if book == layout.NOTE:
        notes = encoder.voice_latents.view(N_NOTES, layout.N_ATOMS, -1).mean(1)
        ids = torch.arange(layout.SIZES[book])
        note = torch.div((ids - 1).clamp(min=0), layout.MAX_REMAINING, rounding_mode="floor")
        return torch.where((ids > 0)[:, None], notes[note], 0.0)
    if book == layout.LOW:
        low = torch.arange(layout.SIZES[layout.LOW])
        bass, drum = encoder.bass_latents.flatten(1), encoder.drum_latents.flatten(1)
        return torch.cat([bass[low // layout.N_DRUM], drum[low % layout.N_DRUM]], 1)
    return (encoder.chord_latents if book == layout.CHORD else encoder.lead_latents).flatten(1)


def _leading(table: Tensor, n_dims: int) -> Tensor:
    """Project rows onto their leading principal axes, [ids, n_dims], with a standard deviation of one."""
    centred = table - table.mean(0)
    axes: Tensor = torch.linalg.svd(centred, full_matrices=False).Vh[:n_dims]
    leading = centred @ axes.T
    made = torch.zeros(len(table), n_dims)
    made[:, : leading.shape[1]] = leading / leading.std().clamp(min=1e-6)
    return made
