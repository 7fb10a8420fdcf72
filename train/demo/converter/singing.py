"""Sings parts of songs at the converter's rate, by any singer, at any pitch, with any phase of the fundamental."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from heartvoice.contracts.constants import STEM_RATE_HZ
from train.demo import harmony, layout, voice
from train.demo.layout import ATOM_1, ATOM_2, NOTE
from train.demo.score import Codes
from train.demo.slots import FADE_SAMPLES
from train.demo.voice import VoiceTables

Samples = NDArray[np.float32]
Values = NDArray[np.float64]

SLOT = round(layout.ATOM_SAMPLES * STEM_RATE_HZ / layout.SAMPLE_RATE_HZ)
"""Samples of an atom's 40 ms."""
FADE = round(FADE_SAMPLES * STEM_RATE_HZ / layout.SAMPLE_RATE_HZ)
GAIN = 2.0
"""As the world's songs have it."""


@dataclass(frozen=True)
class Line:
    """What is sung in each slot of 40 ms."""

    sounds: NDArray[np.intp]
    """[S]: rows of a singer's tables; 0 is silence."""
    hz: Values
    """[S]: 0 where nobody sings."""

    def at(self, factor: float) -> Line:
        """Return the line at other pitches."""
        return Line(self.sounds, self.hz * factor)


def line_of(codes: Codes) -> Line:
    """Read what is sung from codes [8, T]."""
    notes = [layout.read_note(int(code)) for code in codes[NOTE]]
    hz = np.array([0.0 if note is None else harmony.singer_hz(note.singer, note.pitch) for note in notes])
    sounds = np.stack([codes[ATOM_1], np.where(codes[ATOM_2] > 0, codes[ATOM_2] + layout.N_ATOMS, 0)], axis=1)
    sounds = np.where(hz[:, None] > 0, sounds, 0)
    return Line(sounds.reshape(-1).astype(np.intp), np.repeat(hz, 2))


def sing(
    line: Line, singer: VoiceTables, rng: np.random.Generator, wander: Mapping[float, Values] | None = None
) -> Samples:
    """Sing a line: float32 [S * SLOT] at 44.1 kHz.

    Args:
        line: what is sung.
        singer: tables of one singer.
        rng: of the noise.
        wander: for each pitch in Hz, the phase of its fundamental in turns [S * SLOT + FADE], besides that of a
            steady tone; default none.
    """
    wave = np.zeros((len(line.sounds) + 1) * SLOT, np.float32)
    breaths = _breath(line, singer, rng)
    for slot, (sound, hz) in enumerate(zip(line.sounds, line.hz, strict=True)):
        if sound == 0 or hz == 0:
            continue
        samples = slice(slot * SLOT, slot * SLOT + SLOT + FADE)
        waves = _steady(hz, slot % 4) if wander is None else _cosines(hz, slot, wander[hz][samples])
        wave[samples] += (_amplitudes(singer, sound, hz) @ waves + breaths[slot]) * _window()
    return GAIN * wave[: len(line.sounds) * SLOT]


def fades(n_slots: int, times_s: Values) -> Samples:
    """Return how much of each slot sounds at times [n]: float32 [n, n_slots]; silence is a slot like any other."""
    at = times_s[:, None] * STEM_RATE_HZ - np.arange(n_slots) * SLOT
    return np.interp(at, np.arange(SLOT + FADE), _window(), left=0.0, right=0.0).astype(np.float32)


def _amplitudes(singer: VoiceTables, sound: int, hz: float) -> Samples:
    partials = hz * np.arange(1, int(harmony.TOP_HZ / hz) + 1)
    envelope, noise = singer.envelope[0, sound], singer.noise[0, sound]
    share = np.minimum(np.interp(partials, singer.bands_hz, noise) ** 2, 1.0)
    tone = np.exp(np.interp(partials, singer.bands_hz, envelope) / 2) * np.sqrt(1 - share)
    return np.asarray(tone * 2 * np.sqrt(hz / voice.SPOKEN_RATE_HZ), np.float32)


def _cosines(hz: float, slot: int, wander: Values) -> Samples:
    number = np.arange(1, int(harmony.TOP_HZ / hz) + 1, dtype=np.float32)[:, None]
    turns = hz * (slot * SLOT + np.arange(SLOT + FADE)) / STEM_RATE_HZ + wander
    turns = (turns % 1.0).astype(np.float32)
    phase = harmony.phase(number * hz).astype(np.float32)
    return np.asarray(np.cos(np.float32(2 * np.pi) * (number * turns) + phase), np.float32)


@lru_cache(maxsize=256)
def _steady(hz: float, parity: int) -> Samples:
    """Waves that pitches on the lattice of 6.25 Hz have in every fourth slot."""
    return _cosines(hz, parity, np.zeros(SLOT + FADE))


def _breath(line: Line, singer: VoiceTables, rng: np.random.Generator) -> Samples:
    """Return noise of every slot, [S, SLOT + FADE], another one each time."""
    first, last = round(voice.LOWEST_NOISE_HZ / voice.NOISE_STEP_HZ), int(harmony.TOP_HZ / voice.NOISE_STEP_HZ)
    hz = voice.NOISE_STEP_HZ * np.arange(first, last + 1)
    known, where = np.unique(line.sounds, return_inverse=True)
    rows = np.stack([
        np.exp(np.interp(hz, singer.bands_hz, singer.envelope[0, sound]) / 2)
        * np.interp(hz, singer.bands_hz, singer.noise[0, sound])
        for sound in known
    ])  # fmt: skip
    gain = 2 * voice.BREATH * np.sqrt(voice.NOISE_STEP_HZ / voice.SPOKEN_RATE_HZ)
    spectrum = np.zeros((len(line.sounds), SLOT // 2 + 1), np.complex64)
    turns = rng.random((len(line.sounds), len(hz)), np.float32)
    spectrum[:, first : last + 1] = gain * rows[where.reshape(-1)] * np.exp(2j * np.pi * turns)
    waves = np.fft.irfft(spectrum * (SLOT / 2), SLOT, axis=1)
    return np.concatenate([waves, waves[:, :FADE]], axis=1).astype(np.float32)


@lru_cache(maxsize=1)
def _window() -> Samples:
    rise = 0.5 - 0.5 * np.cos(np.pi * (np.arange(FADE) + 0.5) / FADE)
    return np.asarray(np.concatenate([rise, np.ones(SLOT - FADE), 1 - rise]), np.float32)


def excerpt(songs: Sequence[Line], n_slots: int, rng: np.random.Generator) -> Line:
    """Cut a part of a random song; at least a third of its slots are sung, unless ten tries find none."""
    for _ in range(10):
        song = songs[int(rng.integers(len(songs)))]
        start = int(rng.integers(max(1, len(song.sounds) - n_slots + 1)))
        part = slice(start, start + n_slots)
        if np.mean(song.sounds[part] > 0) > 1 / 3:
            break
    pad = n_slots - len(song.sounds[part])
    return Line(np.pad(song.sounds[part], (0, pad)), np.pad(song.hz[part], (0, pad)))
