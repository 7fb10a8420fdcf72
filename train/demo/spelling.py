"""How a word's syllables fill notes of any length with atoms of 40 ms."""

from __future__ import annotations

from train.demo import tables
from train.demo.tables import Atom, Syllable

_LEAST_VOWEL = 2


def spelling(word: str) -> tuple[Syllable, ...]:
    """Return the syllables of a word of the vocabulary in atoms."""
    return tables.spellings()[word]


def fill(syllable: Syllable, slots: int) -> list[int]:
    """Sing a syllable on a note: its atoms for each 40 ms.

    The vowel takes what the note is longer than the syllable: one of its atoms is held. In a shorter note the vowel
    loses atoms down to two, then onset and coda lose evenly.

    Args:
        syllable: how it is spelled.
        slots: length of the note in 40 ms, at least 2.

    Returns:
        As many atoms.
    """
    onset, coda = syllable.onset, syllable.coda
    room = slots - len(onset) - len(coda)
    if room < min(len(syllable.nucleus), _LEAST_VOWEL):
        vowel = min(len(syllable.nucleus), _LEAST_VOWEL, slots)
        kept = slots - vowel
        first = min(-(-kept * len(onset) // max(len(onset) + len(coda), 1)), len(onset))
        onset, coda = _thinned(onset, first), _thinned(coda, kept - first)
        room = slots - len(onset) - len(coda)
    slots_of_note = [*onset, *_vowel(syllable.nucleus, syllable.held, room), *coda]
    return [atom[place % 2] for place, atom in enumerate(slots_of_note)]


def _vowel(nucleus: tuple[Atom, ...], held: int, length: int) -> list[Atom]:
    if length >= len(nucleus):
        return [*nucleus[:held], *[nucleus[held]] * (length - len(nucleus) + 1), *nucleus[held + 1 :]]
    return list(_thinned(nucleus, length))


def _thinned(atoms: tuple[Atom, ...], length: int) -> tuple[Atom, ...]:
    """Keep so many of the atoms, evenly spread."""
    return tuple(atoms[(2 * index + 1) * len(atoms) // (2 * length)] for index in range(min(length, len(atoms))))
