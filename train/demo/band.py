"""Plays the band: chords, lead, bass and drums as waves that are a function of codes and of the frame's parity.

Notes of FluidR3 are measured once (`instruments`) and played again as cosines at the lattice's pitches, whose phases
are fixed at the song's beginning. The last frame of a note is steady and may be held.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from train.demo import harmony, layout, slots
from train.demo.layout import BASS_FRAMES, CHORD, CHORD_FRAMES, FRAME_HZ, FRAME_SAMPLES, LEAD, LEAD_FRAMES, LOW
from train.demo.score import Codes

Samples = NDArray[np.float32]

STEP_S = 0.02
"""Between measured rows of a note."""
FADE_SAMPLES = 480
"""10 ms: from one frame into the next."""
DRUM_FADE_SAMPLES = 48
_LEVELS = {"chord": 0.045, "lead": 0.06, "bass": 0.09}
"""Root mean square of a note in its first half second."""
_LEVELLED_S = 0.5


@dataclass(frozen=True)
class BandTables:
    """What was measured of the instruments."""

    notes: dict[str, Samples]
    """`piano 24`: amplitudes of the harmonics of a note at so many u, [row, K]."""
    drums: dict[str, Samples]
    """Waves at 48 kHz, each with so many frames as `layout.DRUMS` says."""


def note_name(instrument: str, units: float) -> str:
    """Return the name of a note among the tables."""
    return f"{instrument} {units:g}"


@dataclass
class Band:
    """A band that plays codes; it keeps the waves that it has made."""

    tables: BandTables
    _made: dict[tuple[str, int, int, int], Samples] = field(default_factory=dict)

    def sounds(self, codes: Codes) -> dict[str, Samples]:
        """Play the codes [8, T] slot by slot: `chord`, `lead`, `bass` and `drum`, float32 [2 T, slots.SAMPLES]."""
        shape = (2 * codes.shape[1], slots.SAMPLES)
        made = {name: np.zeros(shape, np.float32) for name in ("chord", "lead", "bass", "drum")}
        for frame in range(codes.shape[1]):
            for name, sound in self._sounds(codes[:, frame], frame % 2):
                made[name][2 * frame : 2 * frame + 2] = sound
        return made

    def _sounds(self, codes: NDArray[np.int64], parity: int) -> list[tuple[str, Samples]]:
        sounds = []
        if (chord := layout.read_chord(int(codes[CHORD]))) is not None:
            index = chord.instrument * len(layout.CHORDS) + chord.pitch
            sounds.append(("chord", self._sound("chord", index, chord.frame, parity)))
        if (lead := layout.read_lead(int(codes[LEAD]))) is not None:
            index = lead.instrument * layout.N_LEAD_PITCHES + lead.pitch
            sounds.append(("lead", self._sound("lead", index, lead.frame, parity)))
        low = layout.read_low(int(codes[LOW]))
        if low.bass >= 0:
            sounds.append(("bass", self._sound("bass", low.bass, low.frame, parity)))
        if low.drum:
            sounds.append(("drum", self._sound("drum", low.drum, 0, 0)))
        return sounds

    def _sound(self, part: str, index: int, frame: int, parity: int) -> Samples:
        key = (part, index, frame, parity)
        if key not in self._made:
            wave = self._drum(index) if part == "drum" else self._note(part, index, frame, parity)
            self._made[key] = slots.split(wave)
        return self._made[key]

    def _note(self, part: str, index: int, frame: int, parity: int) -> Samples:
        instrument, pitches, frames = _what(part, index)
        wave = np.zeros(FRAME_SAMPLES + FADE_SAMPLES)
        for units in pitches:
            wave += _tone(self.tables.notes[note_name(instrument, units)], units, frame, frames, parity)
        return np.asarray(_LEVELS[part] * wave * _window(FADE_SAMPLES), np.float32)

    def _drum(self, drum: int) -> Samples:
        name = next(name for name, (first, n) in layout.DRUMS.items() if first <= drum < first + n)
        start = (drum - layout.DRUMS[name][0]) * FRAME_SAMPLES
        wave = self.tables.drums[name][start : start + FRAME_SAMPLES + DRUM_FADE_SAMPLES]
        return np.asarray(wave * _window(DRUM_FADE_SAMPLES)[: len(wave)], np.float32)


def _what(part: str, index: int) -> tuple[str, tuple[float, ...], int]:
    """Return instrument, pitches in u and number of different frames of a sound."""
    if part == "chord":
        instrument, chord = divmod(index, len(layout.CHORDS))
        return layout.CHORD_INSTRUMENTS[instrument], harmony.VOICINGS[layout.CHORDS[chord]], CHORD_FRAMES
    if part == "lead":
        instrument, pitch = divmod(index, layout.N_LEAD_PITCHES)
        return layout.LEAD_INSTRUMENTS[instrument], (harmony.LEAD_UNITS[pitch],), LEAD_FRAMES
    return "bass", (harmony.BASS_UNITS[layout.CHORDS[index]],), BASS_FRAMES


def _tone(amplitudes: Samples, units: float, frame: int, frames: int, parity: int) -> NDArray[np.float64]:
    """Return one frame of a note, [3840 + fade], of root mean square 1 in its first half second."""
    rows = amplitudes.astype(np.float64)
    level = np.sqrt((rows[: round(_LEVELLED_S / STEP_S)] ** 2).sum(axis=1).mean() / 2)
    samples = np.arange(FRAME_SAMPLES + FADE_SAMPLES)
    age = np.minimum(samples + frame * FRAME_SAMPLES, (frames - 0.5) * FRAME_SAMPLES) / layout.SAMPLE_RATE_HZ / STEP_S
    low = np.clip(age.astype(int), 0, len(rows) - 2)
    share = np.minimum(age - low, 1.0)[:, None]
    number = np.arange(1, rows.shape[1] + 1)
    time = (samples + parity * FRAME_SAMPLES) / layout.SAMPLE_RATE_HZ
    hz = units * FRAME_HZ * number
    waves = np.cos(2 * np.pi * hz * time[:, None] + harmony.phase(hz))
    return np.asarray((((1 - share) * rows[low] + share * rows[low + 1]) * waves).sum(axis=1) / max(level, 1e-6))


def _window(fade: int) -> NDArray[np.float64]:
    """Return the fade of a frame, [3840 + fade]; with the neighbours' it adds up to 1."""
    rise = 0.5 - 0.5 * np.cos(np.pi * (np.arange(fade) + 0.5) / fade)
    return np.concatenate([rise, np.ones(FRAME_SAMPLES - fade), 1 - rise])
