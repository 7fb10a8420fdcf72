"""Code vectors that say at first what the sounds of each code are, each book in dimensions of its own.

Random vectors of shared dimensions teach the flow next to nothing: it has to find out what every id means.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from heartvoice.models.heartcodec.flow import FlowMatching
from train.demo import layout
from train.demo.codec_network import codebooks
from train.demo.score import Codes
from train.demo.score_encoder import N_NOTES, PHASES, ScoreEncoder

SHARES: dict[int, float] = {
    layout.ATOM_1: 0.235, layout.ATOM_2: 0.235, layout.NOTE: 0.22, layout.CHORD: 0.125, layout.LEAD: 0.094,
    layout.LOW: 0.086, layout.CLOCK: 0.005,
}  # fmt: skip
"""Share of the vectors' dimensions that each book has. The cursor has none: words make no sound of their own."""


@torch.no_grad()
def start_code_vectors(flow: FlowMatching, encoder: ScoreEncoder, songs: Sequence[Codes]) -> None:
    """Set all code vectors, and make the projections behind them the identity.

    Args:
        flow: gets them.
        encoder: knows the sounds.
        songs: codes [8, T]; ids that are often in them matter more.
    """
    width = flow.sizes.codebook_dim
    at = 0
    books = [codebook.embed[0] for codebook in codebooks(flow)]
    for vectors in books:
        vectors.zero_()
    for book, share in SHARES.items():
        table = _tables(encoder, book)
        uses = np.bincount(np.concatenate([song[book] for song in songs]), minlength=len(table))[: len(table)]
        n_dims = min(max(1, int(share * width)), table.shape[1])
        books[book][: len(table), at : at + n_dims] = _leading(table, n_dims, torch.from_numpy(uses).float())
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
        return _atoms(encoder, book - layout.ATOM_1)
    if book == layout.NOTE:
        ids = torch.arange(layout.SIZES[book])
        note = torch.div((ids - 1).clamp(min=0), layout.MAX_REMAINING, rounding_mode="floor")
        return torch.where((ids > 0)[:, None], torch.eye(N_NOTES)[note], 0.0)
    if book == layout.LOW:
        low = torch.arange(layout.SIZES[layout.LOW])
        bass, drum = encoder.bass_latents.flatten(1), encoder.drum_latents.flatten(1)
        return torch.cat([bass[low // layout.N_DRUM], drum[low % layout.N_DRUM]], 1)
    return (encoder.chord_latents if book == layout.CHORD else encoder.lead_latents).flatten(1)


def _atoms(encoder: ScoreEncoder, half: int) -> Tensor:
    """Latents of a book's atoms at all pitches, as loud as they sound.

    At one pitch, the voice is linear in them: a regression of the same size is 3 dB nearer than from logarithms.
    """
    loudness = encoder.get_buffer("voice_waves").square().sum(1).sqrt()
    latents = encoder.voice_latents.view(N_NOTES, layout.N_ATOMS, PHASES, -1)[:, :, half::2] * loudness
    return latents.transpose(0, 1).flatten(1)


def _leading(table: Tensor, n_dims: int, uses: Tensor) -> Tensor:
    """Project rows onto their leading principal axes, [ids, n_dims], with a standard deviation of one.

    Later axes are smaller by the root of what they have in the table: they, too, are to be heard.
    """
    weights = (uses + 0.1)[:, None] / (uses + 0.1).sum()
    centred = table - (weights * table).sum(0)
    axes: Tensor = torch.linalg.svd(centred * weights.sqrt(), full_matrices=False).Vh[:n_dims]
    leading = centred @ axes.T
    leading /= leading.std(0).sqrt().clamp(min=1e-6)
    made = torch.zeros(len(table), n_dims)
    made[:, : leading.shape[1]] = leading / leading.std().clamp(min=1e-6)
    return made
