"""Accompaniments: chords, bass and drums as notes, played by FluidR3's instruments."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import symusic
from numpy.typing import NDArray

from train.voices import packages

RATE_HZ = 44_100
TICKS = 480
BEATS = 4
"""Of a bar."""
PIANO, ELECTRIC_PIANO, VIBRAPHONE, ORGAN, ACCORDION = 0, 4, 11, 16, 21
NYLON_GUITAR, STEEL_GUITAR, OVERDRIVEN_GUITAR = 24, 25, 29
ACOUSTIC_BASS, FINGERED_BASS, PICKED_BASS = 32, 33, 34
STRINGS, SYNTH_STRINGS = 48, 50
"""General MIDI's programs, from 0."""
_KICK, _SIDE_STICK, _SNARE, _HAT, _OPEN_HAT, _RIDE = 36, 37, 38, 42, 46, 51

Sound = tuple[float, float, int, int]
"""Start and length in beats, MIDI note, velocity."""


@dataclass(frozen=True)
class Part:
    """One instrument: what it plays, its level (root mean square) in dB beside the other parts, and its place."""

    program: int
    pattern: str
    """One of `PATTERNS`."""
    level_db: float
    place: float = 0.0
    """-1 left, 1 right."""


@dataclass(frozen=True)
class Style:
    """A band: its tempo, chords and parts."""

    bpm: float
    tonic: int
    """MIDI note of the key, near C3 = 48."""
    minor: bool
    degrees: tuple[int, ...]
    """Scale degree of each bar's chord, from 0; they are repeated."""
    parts: tuple[Part, ...]
    drums: str | None
    """One of `DRUMS`, or None."""
    drums_db: float = 0.0

    @property
    def eighth_s(self) -> float:
        """Duration of an eighth."""
        return 30.0 / self.bpm

    def chord(self, bar: int) -> tuple[int, int, int]:
        """Return root, third and fifth of a bar's chord as MIDI notes from the tonic's octave up."""
        degree = self.degrees[bar % len(self.degrees)]
        root, third, fifth = (self.scale(degree + step) for step in (0, 2, 4))
        return root, third, fifth

    def scale(self, degree: int) -> int:
        """Return the MIDI note of a scale degree."""
        steps = (0, 2, 3, 5, 7, 8, 10) if self.minor else (0, 2, 4, 5, 7, 9, 11)
        return self.tonic + 12 * (degree // 7) + steps[degree % 7]


def _block(chord: tuple[int, ...]) -> Iterator[Sound]:
    yield from ((at, 1.9, note, 72) for at in (0.0, 2.0) for note in chord)


def _pad(chord: tuple[int, ...]) -> Iterator[Sound]:
    yield from ((0.0, 3.95, note + 12, 64) for note in chord)


def _arpeggio(chord: tuple[int, ...]) -> Iterator[Sound]:
    ladder = (chord[0], chord[1], chord[2], chord[0] + 12, chord[2], chord[1], chord[2], chord[1])
    yield from ((index / 2, 0.9, note, 76 if index % 4 == 0 else 64) for index, note in enumerate(ladder))


def _strum(chord: tuple[int, ...]) -> Iterator[Sound]:
    for at, velocity in ((0.0, 88), (1.0, 66), (1.5, 74), (2.5, 72), (3.0, 82), (3.5, 64)):
        yield from ((at + 0.03 * rank, 0.7, note, velocity) for rank, note in enumerate((*chord, chord[0] + 12)))


def _power(chord: tuple[int, ...]) -> Iterator[Sound]:
    for at in range(8):
        accent = 92 if at in (0, 3, 6) else 70
        yield from ((at / 2, 0.42, note - 12, accent) for note in (chord[0], chord[2], chord[0] + 12))


def _off_beats(chord: tuple[int, ...]) -> Iterator[Sound]:
    yield from ((at + 0.5, 0.35, note + 12, 78) for at in range(BEATS) for note in chord)


def _bass(chord: tuple[int, ...]) -> Iterator[Sound]:
    root, fifth = chord[0] - 12, chord[2] - 12
    yield from ((0.0, 1.4, root, 92), (1.5, 0.45, root, 76), (2.0, 1.4, fifth, 84), (3.5, 0.45, root, 74))


def _walking(chord: tuple[int, ...]) -> Iterator[Sound]:
    tones = (chord[0], chord[1], chord[2], chord[1])
    yield from ((float(beat), 0.95, note - 12, 84) for beat, note in enumerate(tones))


PATTERNS = {
    "block": _block, "pad": _pad, "arpeggio": _arpeggio, "strum": _strum, "power": _power, "off_beats": _off_beats,
    "bass": _bass, "walking": _walking,
}  # fmt: skip
"""What a part plays in one bar, from its chord."""
DRUMS: dict[str, tuple[Sound, ...]] = {
    "rock": (
        *((at / 2, 0.4, _HAT, 74 if at % 2 == 0 else 58) for at in range(8)),
        (0.0, 0.5, _KICK, 104), (1.5, 0.5, _KICK, 84), (2.0, 0.5, _KICK, 98),
        (1.0, 0.5, _SNARE, 98), (3.0, 0.5, _SNARE, 102),
    ),
    "ballad": (
        *((float(at), 0.4, _HAT, 52) for at in range(4)),
        (0.0, 0.5, _KICK, 88), (2.5, 0.5, _KICK, 74), (2.0, 0.5, _SIDE_STICK, 76),
    ),
    "swing": (
        (0.0, 0.5, _RIDE, 70), (1.0, 0.5, _RIDE, 78), (1.67, 0.3, _RIDE, 58), (2.0, 0.5, _RIDE, 70),
        (3.0, 0.5, _RIDE, 78), (3.67, 0.3, _RIDE, 58), (1.0, 0.3, _HAT, 60), (3.0, 0.3, _HAT, 60),
        (0.0, 0.5, _KICK, 62),
    ),
    "dance": (
        *((float(at), 0.5, _KICK, 104) for at in range(4)),
        *((at + 0.5, 0.4, _OPEN_HAT, 66) for at in range(4)),
        (1.0, 0.5, _SNARE, 92), (3.0, 0.5, _SNARE, 92),
    ),
}  # fmt: skip


@lru_cache(maxsize=1)
def _synthesizer() -> symusic.core.Synthesizer:
    return symusic.Synthesizer(sf_path=str(packages.sound_font()), sample_rate=RATE_HZ, quality=4)


def play(style: Style, seconds: float) -> NDArray[np.float32]:
    """Play a band from its first bar: float32 [2, N] at 44.1 kHz, peak 0.5."""
    n = round(seconds * RATE_HZ)
    bars = int(seconds * style.bpm / 60 / BEATS) + 1
    mix = np.zeros((2, n))
    for part in style.parts:
        sounds = [_later(sound, bar) for bar in range(bars) for sound in PATTERNS[part.pattern](style.chord(bar))]
        mix += _panned(_levelled(_render(sounds, part.program, style.bpm, n), part.level_db), part.place)
    if style.drums is not None:
        sounds = [_later(sound, bar) for bar in range(bars) for sound in DRUMS[style.drums]]
        mix += _panned(_levelled(_render(sounds, None, style.bpm, n), style.drums_db), 0.05)
    return np.asarray(0.5 * mix / np.abs(mix).max(), np.float32)


def _later(sound: Sound, bar: int) -> Sound:
    """Move a sound of the first bar to another one."""
    start, length, pitch, velocity = sound
    return BEATS * bar + start, length, pitch, velocity


def _render(sounds: list[Sound], program: int | None, bpm: float, n: int) -> NDArray[np.float32]:
    """Play the sounds of one instrument, or of the drums: [N]."""
    score = symusic.Score(TICKS)
    score.tempos.append(symusic.Tempo(0, bpm))
    track = symusic.Track("", program or 0, program is None)
    for at, length, pitch, velocity in sounds:
        track.notes.append(symusic.Note(round(at * TICKS), round(length * TICKS), pitch, velocity))
    score.tracks.append(track)
    audio: NDArray[np.float32] = _synthesizer().render(score, stereo=False)[0]
    return np.pad(audio, (0, max(0, n - len(audio))))[:n]


def _levelled(track: NDArray[np.float32], level_db: float) -> NDArray[np.float64]:
    """Bring a track to a level; the font's own levels are no mix."""
    wave = track.astype(np.float64)
    return np.asarray(wave * (10 ** (level_db / 20) / np.sqrt(np.mean(wave**2))))


def _panned(track: NDArray[np.float64], place: float) -> NDArray[np.float64]:
    angle = (place + 1) * np.pi / 4
    return np.stack([np.cos(angle) * track, np.sin(angle) * track])
