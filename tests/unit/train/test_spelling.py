"""Syllables on notes of any length."""

from __future__ import annotations

import pytest

from train.demo.spelling import fill
from train.demo.tables import Atom, Syllable


def _atoms(*numbers: int) -> tuple[Atom, ...]:
    """Return atoms that are `number` in the first half of a frame and `-number` in the second."""
    return tuple((number, -number) for number in numbers)


SYLLABLE = Syllable(_atoms(1, 2), _atoms(3, 4, 5), _atoms(6, 7), held=0)


@pytest.mark.parametrize(
    ("slots", "atoms"),
    [
        (2, [3, 5]),
        (3, [2, 3, 5]),
        (4, [2, 3, 5, 7]),
        (6, [1, 2, 3, 5, 6, 7]),
        (7, [1, 2, 3, 4, 5, 6, 7]),
        (10, [1, 2, 3, 3, 3, 3, 4, 5, 6, 7]),
    ],
)
def test_the_vowel_takes_the_room_and_consonants_stay(slots: int, atoms: list[int]) -> None:
    assert [abs(atom) for atom in fill(SYLLABLE, slots)] == atoms


@pytest.mark.parametrize("slots", range(2, 30))
def test_a_note_is_filled_exactly(slots: int) -> None:
    for syllable in (SYLLABLE, Syllable((), _atoms(9), ()), Syllable(_atoms(1, 2, 3), _atoms(4, 5), ())):
        made = fill(syllable, slots)
        assert len(made) == slots
        assert [abs(atom) for atom in made] == sorted(abs(atom) for atom in made)
        assert all((atom > 0) == (place % 2 == 0) for place, atom in enumerate(made))
