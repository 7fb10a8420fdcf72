"""The demo world's ingredients as files: spellings of words, singers' atoms, measured instruments.

They are made by `python -m train.demo.ingredients`. Weights that were trained with them need the very same ones, and
Kokoro's arithmetic of 8 bits rounds otherwise on other kinds of CPU, so they are committed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from train.demo.band import BandTables
from train.demo.voice import VoiceTables

SPELLING = Path(__file__).with_name("spelling.json")
SOUNDS = Path(__file__).with_name("sounds.npz")
_STEP = 0.5 * np.log(10) / 10
"""Envelopes are kept in half dB."""
_LOWEST = -25.0
"""Logarithm of power of the lowest step."""


Atom = tuple[int, int]
"""Ids in the books `ATOM_1` and `ATOM_2`."""


@dataclass(frozen=True)
class Syllable:
    """A syllable as it is spoken slowly: for each 40 ms its atom in the first half of a frame, and in the second."""

    onset: tuple[Atom, ...]
    nucleus: tuple[Atom, ...]
    """At least one."""
    coda: tuple[Atom, ...]
    held: int = 0
    """Index into the nucleus: the atom that long notes hold."""

    @property
    def natural(self) -> int:
        """Length in atoms."""
        return len(self.onset) + len(self.nucleus) + len(self.coda)


Spelling = Mapping[str, tuple[Syllable, ...]]


@lru_cache(maxsize=1)
def spellings() -> dict[str, tuple[Syllable, ...]]:
    """Return the syllables of every word of the vocabulary."""
    stored = json.loads(SPELLING.read_text())
    return {
        word: tuple(
            Syllable(_pairs(onset), _pairs(nucleus), _pairs(coda), held) for onset, nucleus, coda, held in syllables
        )
        for word, syllables in stored.items()
    }


def _pairs(atoms: list[list[int]]) -> tuple[Atom, ...]:
    return tuple((first, second) for first, second in atoms)


@lru_cache(maxsize=1)
def sounds() -> tuple[VoiceTables, BandTables]:
    """Return the singers and the band."""
    with np.load(SOUNDS) as stored:
        voices = VoiceTables(
            stored["bands_hz"],
            (_LOWEST + _STEP * stored["envelope"].astype(np.float32)).astype(np.float32),
            stored["noise"].astype(np.float32) / np.float32(255),
        )
        notes = {
            name.removeprefix("note "): stored[name].astype(np.float32) for name in stored if name.startswith("note ")
        }
        drums = {
            name.removeprefix("drum "): stored[name].astype(np.float32) / np.float32(32_768)
            for name in stored
            if name.startswith("drum ")
        }
    return voices, BandTables(notes, drums)


def write(spelled: Spelling, voices: VoiceTables, band: BandTables) -> None:
    """Write both files."""
    lists = {
        word: [[each.onset, each.nucleus, each.coda, each.held] for each in syllables]
        for word, syllables in spelled.items()
    }
    lines = (f" {json.dumps(word)}: {json.dumps(each, separators=(',', ':'))}" for word, each in lists.items())
    SPELLING.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    arrays: dict[str, NDArray[np.generic]] = {
        "bands_hz": voices.bands_hz,
        "envelope": np.clip(np.rint((voices.envelope - _LOWEST) / _STEP), 0, 255).astype(np.uint8),
        "noise": np.rint(255 * voices.noise).astype(np.uint8),
    }
    arrays |= {f"note {name}": rows.astype(np.float16) for name, rows in band.notes.items()}
    arrays |= {f"drum {name}": np.rint(32_768 * wave).astype(np.int16) for name, wave in band.drums.items()}
    np.savez_compressed(SOUNDS, **arrays)


def hashes() -> dict[str, str]:
    """Return the sha256 of both files: what weights were trained with."""
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in (SPELLING, SOUNDS)}
