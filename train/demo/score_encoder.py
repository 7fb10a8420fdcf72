"""Score encoder: codes to the latents that the decoder is trained with. It exists in training only.

Each part of the band has latents of its own. Held tones of whole `u` repeat every 80 ms and those of half `u` every
160 ms, so tables have an entry for each of the four latents of two frames.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from heartvoice.models.heartcodec.scalar import LEVELS
from train.demo import layout
from train.demo.harmony import BASS_UNITS, VOICINGS

SLOTS: dict[str, int] = {"voice": 48, "chord": 16, "lead": 14, "bass": 8, "drum": 10}
"""Latents of each part; their sum is the codec's `latent_hidden_dim`."""
PHASES = 4
"""Latents of two frames."""
WIDTH = 64
"""Width of the voice's embeddings."""
_HIDDEN = 256
_FAR = 4.0
"""Most standard deviations of a value at first; silence is further away than any sound."""
_START = 0.7
"""Standard deviation of the tables at first: most of tanh's range."""


class ScoreEncoder(nn.Module):
    """Tables for the instruments; for the voice a network over atom, singer and pitch."""

    clock_parity: Tensor
    chord_phases: Tensor
    bass_phases: Tensor
    note_pitch: Tensor

    def __init__(self) -> None:
        super().__init__()
        bass_size = layout.SIZES[layout.LOW] // layout.N_DRUM
        n_notes = len(layout.SINGERS) * layout.N_PITCHES
        self.chord = _table(layout.SIZES[layout.CHORD] * PHASES * 2, SLOTS["chord"])
        self.lead = _table(layout.SIZES[layout.LEAD] * PHASES * 2, SLOTS["lead"])
        self.bass = _table(bass_size * PHASES, SLOTS["bass"])
        self.drum = _table(layout.N_DRUM * 2, SLOTS["drum"])
        self.atom = _table(layout.N_SOUNDS, WIDTH, 1.0)
        self.colour = nn.Embedding(len(layout.SINGERS) * layout.N_SOUNDS, WIDTH)
        nn.init.zeros_(self.colour.weight)  # singers begin alike
        self.pitch = _table((1 + n_notes) * PHASES, WIDTH, 1.0)
        self.voice = nn.Sequential(
            nn.Linear(3 * WIDTH, _HIDDEN), nn.SiLU(), nn.Linear(_HIDDEN, _HIDDEN), nn.SiLU(),
            nn.Linear(_HIDDEN, SLOTS["voice"]),
        )  # fmt: skip
        parity = [0 if (clock := layout.read_clock(code)) is None else clock.frame % 2 for code in _ids(layout.CLOCK)]
        self.register_buffer("clock_parity", torch.tensor(parity), persistent=False)
        self.register_buffer("chord_phases", _chord_phases(), persistent=False)
        self.register_buffer("bass_phases", _bass_phases(bass_size), persistent=False)
        self.register_buffer("note_pitch", _note_pitch(), persistent=False)

    @torch.no_grad()
    def start_from(self, envelopes: Tensor) -> None:
        """Begin the atoms' tables with what is known of them, so that atoms that sound alike begin alike.

        Args:
            envelopes: float32 [singers, N_SOUNDS, values], at most `WIDTH` values.
        """
        centred = envelopes - envelopes.mean((0, 1))
        known = (centred / centred.std().clamp(min=1e-6)).clamp(-_FAR, _FAR)
        values = known.shape[-1]
        self.atom.weight[:, :values] = known.mean(0)
        self.colour.weight[:, :values] = (known - known.mean(0)).flatten(0, 1)

    def forward(self, codes: Tensor, channel: Tensor) -> Tensor:
        """Compute latents before rounding.

        Args:
            codes: int64 [B, 8, n].
            channel: int64 [B], 0 is left.

        Returns:
            float32 [B, F, 2 n] in (-1, 1).
        """
        side = channel[:, None, None]
        half = torch.arange(2, device=codes.device)
        books = codes[..., None].expand(*codes.shape, 2).unbind(1)
        parity = self.clock_parity[books[layout.CLOCK]]
        phase = 2 * parity + half
        chord, lead = books[layout.CHORD], books[layout.LEAD]
        bass = torch.div(books[layout.LOW], layout.N_DRUM, rounding_mode="floor")
        parts = {
            "voice": self._sung(codes, phase),
            "chord": self.chord((chord * PHASES + phase % self.chord_phases[chord]) * 2 + side),
            "lead": self.lead((lead * PHASES + half) * 2 + side),
            "bass": self.bass(bass * PHASES + phase % self.bass_phases[bass]),
            "drum": self.drum(books[layout.LOW] % layout.N_DRUM * 2 + half),
        }
        latents = torch.tanh(torch.cat([parts[name] for name in SLOTS], -1))
        return latents.flatten(1, 2).transpose(1, 2)

    def _sung(self, codes: Tensor, phase: Tensor) -> Tensor:
        """Latents of the voice, [B, n, 2, voice]."""
        pitch = self.note_pitch[codes[:, layout.NOTE]][..., None].expand_as(phase)
        ids = torch.stack([codes[:, layout.ATOM_1], codes[:, layout.ATOM_2]], -1)
        rows = ids + layout.N_ATOMS * torch.arange(2, device=ids.device)
        atoms = torch.where((pitch > 0) & (ids > 0), rows, 0)
        singer = torch.div((pitch - 1).clamp(min=0), layout.N_PITCHES, rounding_mode="floor")
        pitch = torch.where(atoms > 0, pitch, 0)  # silence has no pitch
        timbre = self.atom(atoms) + self.colour(singer * layout.N_SOUNDS + atoms)
        tone = self.pitch(pitch * PHASES + torch.where(pitch > 0, phase, 0))
        sung: Tensor = self.voice(torch.cat([timbre, tone, timbre * tone], -1))
        return sung


def rounded(latents: Tensor) -> Tensor:
    """Round to the codec's levels; gradients pass as if nothing had been rounded."""
    return latents + (torch.round(LEVELS * latents) / LEVELS - latents).detach()


def flipped(latents: Tensor, share: float) -> Tensor:
    """Move a share of the values by a level, up or down; the decoder learns to tolerate the flow's errors."""
    moved = torch.rand_like(latents) < share
    return latents + moved * torch.sign(torch.randn_like(latents)) / LEVELS


def stereo_targets(encoder: ScoreEncoder, codes: Tensor) -> Tensor:
    """Compute the flow's targets, rounded: [B, 8, n] to [B, 2 n, 2 F], left first."""
    sides = [encoder(codes, torch.full_like(codes[:, 0, 0], side)) for side in (0, 1)]
    return (torch.round(LEVELS * torch.cat(sides, 1)) / LEVELS).transpose(1, 2)


def _table(rows: int, width: int, spread: float = _START) -> nn.Embedding:
    table = nn.Embedding(rows, width)
    nn.init.normal_(table.weight, 0.0, spread)
    return table


def _ids(book: int) -> range:
    return range(layout.SIZES[book])


def _chord_phases() -> Tensor:
    """Different latents of each chord id: the two of a frame, or of two frames for tones between whole u."""
    chords = [layout.read_chord(code) for code in _ids(layout.CHORD)]
    split = [chord is not None and _is_split(VOICINGS[layout.CHORDS[chord.pitch]]) for chord in chords]
    return torch.tensor([PHASES if each else 2 for each in split])


def _bass_phases(size: int) -> Tensor:
    lows = [layout.read_low(code * layout.N_DRUM).bass for code in range(size)]
    split = [bass >= 0 and _is_split((BASS_UNITS[layout.CHORDS[bass]],)) for bass in lows]
    return torch.tensor([PHASES if each else 2 for each in split])


def _is_split(units: tuple[float, ...]) -> bool:
    return any(unit % 1 for unit in units)


def _note_pitch() -> Tensor:
    """Index of singer and pitch of each id of the notes' book, from 1; 0 is no voice."""
    notes = [layout.read_note(code) for code in _ids(layout.NOTE)]
    return torch.tensor([0 if note is None else 1 + note.singer * layout.N_PITCHES + note.pitch for note in notes])
