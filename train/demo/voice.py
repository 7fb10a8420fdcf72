"""Sings atoms: harmonics and noise under envelopes, locked to the frames.

Every partial is a cosine whose phase is fixed at the song's beginning: harmonics of the note, and for noise partials
25 Hz apart, whose random phases are the same in every frame. So an atom at a pitch is one wave, up to the frame's
parity, and neighbouring atoms of one pitch fade into each other without beating.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from train.demo import harmony, layout, slots
from train.demo.layout import ATOM_1, ATOM_2, ATOM_SAMPLES, FRAME_SAMPLES, NOTE, SAMPLE_RATE_HZ
from train.demo.score import Codes

Samples = NDArray[np.float32]

SPOKEN_RATE_HZ = 24_000
"""Rate of the speech of which WORLD measured the envelopes."""
NOISE_STEP_HZ = 25.0
"""Between partials of the noise: it repeats in every slot. With 50 it would be heard as a pitch."""
LOWEST_NOISE_HZ = 150.0
BREATH = 0.6
"""Of the noise as it was spoken: fricatives of compressed words are louder than they need to be."""
_NOISE_SEED = 5
RULES = (slots.FADE_SAMPLES, harmony.SPREAD_S, harmony.TOP_HZ, NOISE_STEP_HZ, LOWEST_NOISE_HZ, BREATH, _NOISE_SEED)
"""What besides the tables decides how the voice sounds."""


@dataclass(frozen=True)
class VoiceTables:
    """Envelopes of the atoms of every singer."""

    bands_hz: NDArray[np.float64]
    """[D]: frequencies of the grid, ascending from 0."""
    envelope: Samples
    """[singer, N_SOUNDS, D]: natural logarithm of power, as WORLD has it; id 0 is silence."""
    noise: Samples
    """[singer, N_SOUNDS, D]: share of the amplitude that is noise, 0 to 1."""


def sounds(codes: Codes, tables: VoiceTables) -> Samples:
    """Sing the voice of a song, each atom by itself.

    Args:
        codes: int64 [8, T].
        tables: the singers.

    Returns:
        Float32 [2 T, slots.SAMPLES]; `slots.joined` adds them up.
    """
    made = np.zeros((2 * codes.shape[1], slots.SAMPLES), np.float32)
    for (singer, pitch, parity, half), frames in _groups(codes).items():
        atoms = codes[(ATOM_1, ATOM_2)[half], frames]
        known = (atoms > 0) & (atoms < layout.N_ATOMS)
        frames, atoms = frames[known], half * layout.N_ATOMS + atoms[known]
        made[2 * frames + half] = _sounds(tables, singer, pitch, parity, half, atoms)
    return made


def _groups(codes: Codes) -> dict[tuple[int, int, int, int], NDArray[np.intp]]:
    """Return the frames of each singer, pitch, parity of the frame, and half of it."""
    groups: dict[tuple[int, int, int, int], list[int]] = {}
    for frame in np.flatnonzero(codes[NOTE]):
        note = layout.read_note(int(codes[NOTE, frame]))
        if note is not None:
            for half in (0, 1):
                groups.setdefault((note.singer, note.pitch, int(frame) % 2, half), []).append(int(frame))
    return {group: np.array(frames) for group, frames in groups.items()}


def _sounds(tables: VoiceTables, singer: int, pitch: int, parity: int, half: int, atoms: NDArray[np.int64]) -> Samples:
    """Return the faded waves of atoms, [n, slots.SAMPLES]."""
    hz = harmony.singer_hz(singer, pitch)
    envelope, noise = tables.envelope[singer, atoms], tables.noise[singer, atoms]
    partials = hz * np.arange(1, int(harmony.TOP_HZ / hz) + 1)
    tone = _at(envelope, tables, partials) * np.sqrt(1 - np.minimum(_share(noise, tables, partials) ** 2, 1.0))
    tone *= 2 * np.sqrt(hz / SPOKEN_RATE_HZ)
    waves = tone.astype(np.float32) @ _harmonics(hz, parity, half)
    places = _noise_hz()
    breath = _at(envelope, tables, places) * _share(noise, tables, places)
    waves += _noise(2 * BREATH * np.sqrt(NOISE_STEP_HZ / SPOKEN_RATE_HZ) * breath)
    return np.asarray(waves * slots.window())


def _at(envelope: Samples, tables: VoiceTables, hz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return amplitudes at frequencies, [n, K]."""
    return np.asarray(np.exp(_interpolated(envelope, tables, hz) / 2))


def _share(noise: Samples, tables: VoiceTables, hz: NDArray[np.float64]) -> NDArray[np.float64]:
    return _interpolated(noise, tables, hz)


def _interpolated(rows: Samples, tables: VoiceTables, hz: NDArray[np.float64]) -> NDArray[np.float64]:
    place = np.interp(hz, tables.bands_hz, np.arange(len(tables.bands_hz)))
    low = np.minimum(place.astype(int), len(tables.bands_hz) - 2)
    share = place - low
    return np.asarray((1 - share) * rows[:, low] + share * rows[:, low + 1])


@lru_cache(maxsize=128)
def _harmonics(hz: float, parity: int, half: int) -> Samples:
    """Return the cosines of all harmonics over one atom, [K, slots.SAMPLES]."""
    number = np.arange(1, int(harmony.TOP_HZ / hz) + 1)[:, None]
    time = (np.arange(slots.SAMPLES) + parity * FRAME_SAMPLES + half * ATOM_SAMPLES) / SAMPLE_RATE_HZ
    phase = harmony.phase(number * hz)
    return np.asarray(np.cos(2 * np.pi * number * hz * time + phase), np.float32)


@lru_cache(maxsize=1)
def _noise_hz() -> NDArray[np.float64]:
    first, last = round(LOWEST_NOISE_HZ / NOISE_STEP_HZ), int(harmony.TOP_HZ / NOISE_STEP_HZ)
    return NOISE_STEP_HZ * np.arange(first, last + 1)


def _noise(amplitudes: NDArray[np.float64]) -> Samples:
    """Return noise with given partials over one atom, [n, slots.SAMPLES]; atoms begin with a period."""
    first, period = round(LOWEST_NOISE_HZ / NOISE_STEP_HZ), round(SAMPLE_RATE_HZ / NOISE_STEP_HZ)
    spectrum = np.zeros((len(amplitudes), period // 2 + 1), np.complex128)
    spectrum[:, first : first + amplitudes.shape[1]] = amplitudes * _noise_phases(amplitudes.shape[1])
    wave = np.fft.irfft(spectrum * (period / 2), period)
    return np.tile(wave, (1, -(-slots.SAMPLES // period)))[:, : slots.SAMPLES].astype(np.float32)


@lru_cache(maxsize=1)
def _noise_phases(n: int) -> NDArray[np.complex128]:
    return np.asarray(np.exp(2j * np.pi * np.random.default_rng(_NOISE_SEED).random(n)))
