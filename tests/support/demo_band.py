"""A small band for tests of the codec's training: every part is a tone, locked in phase as the real renderer's are."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from train.demo import harmony, layout, slots
from train.demo.crops import PARTS
from train.demo.score import Codes

Samples = NDArray[np.float32]
RINGING = 480
"""Samples that a frame adds to the next one."""


class DemoBand:
    """A `train.demo.crops.Renderer`."""

    places: Mapping[str, tuple[float, float]] = dict.fromkeys(PARTS, (1.0, 1.0)) | {"chord": (1.0, 0.7)}

    def sounds(self, codes: Codes) -> dict[str, Samples]:
        n_frames = codes.shape[1]
        out = {part: np.zeros((2 * n_frames, slots.SAMPLES), np.float32) for part in PARTS}
        for frame in range(n_frames):
            column = tuple(int(code) for code in codes[:, frame])
            for part, hz, gain in _tones(column):
                out[part][2 * frame : 2 * frame + 2] = slots.split(_tone(hz, frame % 2)) * np.float32(gain)
        return out

    def stems(self, codes: Codes) -> dict[str, Samples]:
        parts = {part: slots.joined(sounds) for part, sounds in self.sounds(codes).items()}
        return {part: np.outer(self.places[part], wave).astype(np.float32) for part, wave in parts.items()}


def _tones(column: tuple[int, ...]) -> list[tuple[str, float, float]]:
    tones = []
    note, chord = layout.read_note(column[layout.NOTE]), layout.read_chord(column[layout.CHORD])
    lead, low = layout.read_lead(column[layout.LEAD]), layout.read_low(column[layout.LOW])
    if note is not None:
        loud = column[layout.ATOM_1] / layout.N_ATOMS
        tones.append(("voice", harmony.singer_hz(note.singer, note.pitch), 0.1 * loud))
    if chord is not None:
        tones.append(("chord", layout.FRAME_HZ * harmony.VOICINGS[layout.CHORDS[chord.pitch]][0], 0.05))
    if lead is not None:
        tones.append(("lead", layout.FRAME_HZ * harmony.LEAD_UNITS[lead.pitch], 0.05))
    if low.bass >= 0:
        tones.append(("bass", layout.FRAME_HZ * harmony.BASS_UNITS[layout.CHORDS[low.bass]], 0.05))
    if low.drum:
        tones.append(("drum", 1000.0 * low.drum, 0.02))
    return tones


@lru_cache(maxsize=1024)
def _tone(hz: float, parity: int) -> Samples:
    n_samples = layout.FRAME_SAMPLES + RINGING
    time = (np.arange(n_samples) + parity * layout.FRAME_SAMPLES) / layout.SAMPLE_RATE_HZ
    edge = np.minimum(np.arange(n_samples), np.arange(n_samples)[::-1]) / RINGING
    tone: Samples = (np.sin(2 * np.pi * hz * time) * np.minimum(edge, 1)).astype(np.float32)
    return tone
