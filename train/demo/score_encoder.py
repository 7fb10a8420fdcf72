"""Score encoder: codes to the latents that the decoder is trained with. It exists in training only.

Nothing in it is learned. What a part adds in 40 ms is one of many waves that are known beforehand; each part has
latents of its own, and they are the leading principal components of its waves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from heartvoice.models.heartcodec.scalar import LEVELS
from train.demo import layout, slots
from train.demo.crops import Renderer
from train.demo.score import Codes

SLOTS: dict[str, int] = {"voice": 67, "chord": 23, "lead": 17, "bass": 11, "drum": 10}
"""Latents of each part: components whose variance over songs is largest; their sum is `latent_hidden_dim`."""
PHASES = 4
"""Slots of two frames: sounds are a function of their codes and of the frame's parity."""
REFERENCE = 0.15
"""Standard deviation of the components whose latents have 1. Larger ones have more, by the square root: between latents
of one size, whose flow minds all errors alike, and those as large as their sound, of which small ones round to nothing.

The codec clamps no latents. Kept in [-1, 1], where a deviation of 1/4 has room, rounding alone cost 3 dB.
"""
N_NOTES = len(layout.SINGERS) * layout.N_PITCHES
N_SONGS = 24
"""Whose waves the components are those of."""
_LEAST = 1e-3
"""Standard deviation of a component that counts, over that of the first one."""
_ROUNDS = 4


class ScoreEncoder(nn.Module):
    """Tables of latents by the codes of each part, the frame's parity, and the slot; empty until `start_from`."""

    clock_parity: Tensor
    voice_latents: Tensor
    chord_latents: Tensor
    lead_latents: Tensor
    bass_latents: Tensor
    drum_latents: Tensor

    def __init__(self) -> None:
        super().__init__()
        parity = [0 if (clock := layout.read_clock(code)) is None else clock.frame % 2 for code in _ids(layout.CLOCK)]
        self.register_buffer("clock_parity", torch.tensor(parity), persistent=False)
        for part, size in SLOTS.items():
            self.register_buffer(f"{part}_latents", torch.zeros(_rows(part), PHASES, size))
            self.register_buffer(f"{part}_waves", torch.zeros(size, slots.SAMPLES))
            self.register_buffer(f"{part}_places", torch.ones(2))

    @torch.no_grad()
    def start_from(self, renderer: Renderer, songs: Sequence[Codes]) -> None:
        """Find the components of all parts, and the latents of all codes.

        Args:
            renderer: makes the sounds.
            songs: codes [8, T]; how often a sound is in them is its weight. A part that is in none stays silent.
        """
        heard = [renderer.sounds(song) for song in songs[:N_SONGS]]
        for part, size in SLOTS.items():
            waves = torch.from_numpy(np.concatenate([song[part] for song in heard]))
            waves = waves[waves.any(1)]
            places = torch.tensor(renderer.places[part])
            self.get_buffer(f"{part}_places").copy_(places)
            if len(waves):
                components = _components(waves, size) * places.max()
                self.get_buffer(f"{part}_waves").copy_(components)
                inverse = torch.linalg.pinv(components.double()).float()
                for start, codes in _catalogue(part):
                    rows = torch.from_numpy(renderer.sounds(codes)[part]).view(-1, PHASES, slots.SAMPLES)
                    self.get_buffer(f"{part}_latents")[start : start + len(rows)] = rows @ inverse

    def forward(self, codes: Tensor, channel: Tensor) -> Tensor:
        """Compute latents before rounding.

        Args:
            codes: int64 [B, 8, n].
            channel: int64 [B], 0 is left.

        Returns:
            float32 [B, F, 2 n], of about unit variance.
        """
        parity = self.clock_parity[codes[:, layout.CLOCK]]
        phase = 2 * parity[..., None] + torch.arange(2, device=codes.device)
        made = []
        for part in SLOTS:
            place = self.get_buffer(f"{part}_places")[channel].view(-1, 1, 1, 1)
            made.append(place * self.get_buffer(f"{part}_latents")[_row(part, codes), phase])
        latents = torch.cat(made, -1)
        return latents.flatten(1, 2).transpose(1, 2)

    def waves(self) -> Tensor:
        """Return the wave that each latent stands for when it is 1: [F, slots.SAMPLES]."""
        return torch.cat([self.get_buffer(f"{part}_waves") for part in SLOTS])


def rounded(latents: Tensor) -> Tensor:
    """Round to the codec's levels."""
    return torch.round(LEVELS * latents) / LEVELS


def flipped(latents: Tensor, share: float) -> Tensor:
    """Move a share of the values by a level, up or down; the decoder learns to tolerate the flow's errors."""
    moved = torch.rand_like(latents) < share
    return latents + moved * torch.sign(torch.randn_like(latents)) / LEVELS


def stereo_targets(encoder: ScoreEncoder, codes: Tensor) -> Tensor:
    """Compute the flow's targets, rounded: [B, 8, n] to [B, 2 n, 2 F], left first."""
    sides = [encoder(codes, torch.full_like(codes[:, 0, 0], side)) for side in (0, 1)]
    return rounded(torch.cat(sides, 1)).transpose(1, 2)


def _components(waves: Tensor, size: int) -> Tensor:
    """Return the principal components of waves [n, N], each as large as a latent of 1 means: [size, N]."""
    n = min(size, *waves.shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        _, spread, axes = torch.svd_lowrank(waves, q=min(n + 8, *waves.shape), niter=_ROUNDS)
    deviation = spread[:n] / len(waves) ** 0.5
    deviation = torch.where(deviation > _LEAST * deviation[0], deviation, 0.0)
    made = torch.zeros(size, waves.shape[1])
    made[:n] = (REFERENCE * deviation).sqrt()[:, None] * axes.T[:n]
    return made


def _rows(part: str) -> int:
    """Number of rows of a part's table."""
    low = layout.SIZES[layout.LOW]
    rows = {
        "voice": N_NOTES * layout.N_ATOMS, "chord": layout.SIZES[layout.CHORD], "lead": layout.SIZES[layout.LEAD],
        "bass": low // layout.N_DRUM, "drum": layout.N_DRUM,
    }  # fmt: skip
    return rows[part]


def _row(part: str, codes: Tensor) -> Tensor:
    """Rows of codes [B, 8, n] in a part's table, [B, n, 2] by slot; those of all other parts are alike in both."""
    if part == "voice":
        notes, atoms = codes[:, layout.NOTE], codes[:, [layout.ATOM_1, layout.ATOM_2]].transpose(1, 2)
        note = torch.div(notes - 1, layout.MAX_REMAINING, rounding_mode="floor")[..., None]
        return torch.where(notes[..., None] > 0, note * layout.N_ATOMS + atoms, 0)
    low = codes[:, layout.LOW]
    rows = {
        "chord": codes[:, layout.CHORD], "lead": codes[:, layout.LEAD],
        "bass": torch.div(low, layout.N_DRUM, rounding_mode="floor"), "drum": low % layout.N_DRUM,
    }  # fmt: skip
    return rows[part][..., None].expand(*low.shape, 2)


def _catalogue(part: str) -> Iterator[tuple[int, Codes]]:
    """Yield songs with every sound of a part in an even and in an odd frame, and the row of the first one."""
    if part == "voice":
        for note in range(N_NOTES):
            yield note * layout.N_ATOMS, _song(
                {layout.NOTE: 1 + note * layout.MAX_REMAINING, layout.ATOM_1: _twice(layout.N_ATOMS),
                 layout.ATOM_2: _twice(layout.N_ATOMS)}
            )  # fmt: skip
        return
    book = {"chord": layout.CHORD, "lead": layout.LEAD, "bass": layout.LOW, "drum": layout.LOW}[part]
    yield 0, _song({book: _twice(_rows(part)) * (layout.N_DRUM if part == "bass" else 1)})


def _song(books: Mapping[int, Codes | int]) -> Codes:
    n_frames = next(len(codes) for codes in books.values() if not isinstance(codes, int))
    song = np.zeros((layout.N_BOOKS, n_frames), np.int64)
    for book, codes in books.items():
        song[book] = codes
    return song


def _twice(n: int) -> Codes:
    return np.repeat(np.arange(n), 2)


def _ids(book: int) -> range:
    return range(layout.SIZES[book])
