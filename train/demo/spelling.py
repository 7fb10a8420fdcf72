"""How words are spelled in atoms of 40 ms, and how a syllable fills a note.

PLACEHOLDER: until the singers' atoms are made, atoms stand for phonemes, in the final number and form.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from train.demo import words
from train.demo.layout import N_ATOMS

_HELD = 0.4
"""Place inside the vowel of the atom that long notes hold."""
_LEAST_VOWEL = 2


@dataclass(frozen=True)
class SpelledSyllable:
    """Atoms of one syllable as it is spoken slowly."""

    onset: tuple[int, ...]
    nucleus: tuple[int, ...]
    """At least one."""
    coda: tuple[int, ...]
    stressed: bool = False

    @property
    def natural(self) -> int:
        """Length in atoms."""
        return len(self.onset) + len(self.nucleus) + len(self.coda)


@cache
def spelling(word: str) -> tuple[SpelledSyllable, ...]:
    """Return the syllables of a word of the vocabulary in atoms."""
    made = []
    for syllable in words.syllables(word):
        long = 5 if syllable.nucleus in words.DIPHTHONGS else 4
        made.append(
            SpelledSyllable(
                tuple(_atom(letter, 0) for letter in syllable.onset),
                tuple(_atom(syllable.nucleus, step) for step in range(long)),
                tuple(_atom(letter, 1) for letter in syllable.coda),
            )
        )
    return tuple(made)


def _atom(letter: str, step: int) -> int:
    return 1 + (ord(letter) * 7 + step) % (N_ATOMS - 1)


def fill(syllable: SpelledSyllable, slots: int) -> list[int]:
    """Sing a syllable on a note: its atoms for each 40 ms.

    The vowel takes what the note is longer than the syllable: its atom at 40 % is held. In a shorter note the vowel
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
    return [*onset, *_vowel(syllable.nucleus, room), *coda]


def _vowel(nucleus: tuple[int, ...], length: int) -> list[int]:
    held = int(_HELD * (len(nucleus) - 1))
    if length >= len(nucleus):
        return [*nucleus[:held], *[nucleus[held]] * (length - len(nucleus) + 1), *nucleus[held + 1 :]]
    return list(_thinned(nucleus, length))


def _thinned(atoms: tuple[int, ...], length: int) -> tuple[int, ...]:
    """Keep so many of the atoms, evenly spread."""
    return tuple(atoms[(2 * index + 1) * len(atoms) // (2 * length)] for index in range(min(length, len(atoms))))
