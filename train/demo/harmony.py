"""Pitches, chords and keys of the demo world, on a lattice of 6.25 Hz.

Just intonation over C = 300 Hz = 24 u, u = 12.5 Hz. A tone of whole u is the same in every frame of 80 ms, one of half
u is the same in every second frame: waves are a function of codes and of the frame's parity, which the clock says.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from train.demo.layout import CHORDS, FRAME_HZ

SPREAD_S = 0.004
"""How much later the highest partials come than the lowest."""
TOP_HZ = 11_500.0
"""Of all tones."""
WOMEN = (15.0, 16.0, 18.0, 20.0, 22.5, 24.0, 27.0)
"""E F G A B C D in u: 187.5 to 337.5 Hz."""
MEN = (9.0, 10.0, 12.0, 13.5, 15.0, 16.0, 18.0)
"""G A C D E F G in u: 112.5 to 225 Hz; a man's B would lie between the lattice."""
LETTERS = {"female": "EFGABCD", "male": "GACDEFG"}
"""Names of the pitches of a singer."""
LEAD_UNITS = (36.0, 40.0, 45.0, 48.0, 54.0, 60.0, 64.0, 72.0, 80.0, 90.0)
LEAD_LETTERS = "GABCDEFGAB"
TONES: dict[str, str] = {"C": "CEG", "Em": "EGB", "F": "FAC", "G": "GBD", "Am": "ACE", "D": "DGA"}
"""Letters of each chord, root first. D has a fourth in place of the third, whose F sharp is not on the lattice."""
VOICINGS: dict[str, tuple[float, ...]] = {
    "C": (24, 30, 36), "Em": (30, 36, 45), "F": (24, 32, 40), "G": (27, 36, 45), "Am": (24, 30, 40),
    "D": (27, 36, 40.5),
}  # fmt: skip
"""In u."""
BASS_UNITS: dict[str, float] = {"C": 6, "Em": 7.5, "F": 8, "G": 9, "Am": 10, "D": 13.5}


@dataclass(frozen=True)
class Key:
    """A key: its tonic chord, its notes, and the progressions of four bars that it has."""

    name: str
    mood: str
    tonic: str
    letters: str
    progressions: tuple[tuple[str, ...], ...]

    @property
    def chords(self) -> frozenset[str]:
        """Chords that its songs may have."""
        return frozenset(chord for progression in self.progressions for chord in progression) | {self.tonic}


def _progressions(*texts: str) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(text.split()) for text in texts)


KEYS: dict[str, Key] = {
    key.name: key
    for key in (
        Key("C major", "happy", "C", "CDEFGAB", _progressions("C F G C", "C G Am F", "C Am F G", "F G C Am")),
        Key("G major", "happy", "G", "GABCDE", _progressions("G C D G", "G Em C D", "C D G Em", "G D Am C")),
        Key("A minor", "sad", "Am", "ABCDEFG", _progressions("Am F C G", "Am Em F Am", "Am G F Em", "F Am Em Am")),
        Key("E minor", "sad", "Em", "EGABCD", _progressions("Em C G D", "Em Am C D", "Am Em D Em", "Em G D Am")),
    )
}
"""Two major keys a fifth apart and their minor ones. Those with D have no F."""


def gender(singer: int) -> str:
    """Return `female` or `male`."""
    return "female" if singer < 2 else "male"


def singer_units(singer: int, pitch: int) -> float:
    """Return a singer's pitch in u."""
    return (WOMEN if gender(singer) == "female" else MEN)[pitch]


def singer_hz(singer: int, pitch: int) -> float:
    """Return the frequency of a singer's pitch."""
    return FRAME_HZ * singer_units(singer, pitch)


def phase(hz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the phases of partials at the song's beginning.

    They depend on the frequency alone, so that all tones together are sums of few waves; spread, so that no wave has
    a peak.
    """
    return -np.pi * SPREAD_S * hz**2 / TOP_HZ


def singer_letter(singer: int, pitch: int) -> str:
    """Return the name of a singer's pitch."""
    return LETTERS[gender(singer)][pitch]


def key_of(chords: list[str]) -> Key | None:
    """Find the key of a song by its last chord; None if it has none that ends so."""
    return next((key for key in KEYS.values() if chords and key.tonic == chords[-1]), None)


def chord_index(chord: str) -> int:
    """Return a chord's place in `CHORDS`."""
    return CHORDS.index(chord)
