"""The songs that are trained on, and those that are kept for tests: by number."""

from __future__ import annotations

from collections.abc import Iterator

from train.demo.compose import compose
from train.demo.grammar import HELD_OUT_SEED, held_out_lyrics, training_lyrics
from train.demo.score import Score, Tags


def training_song(number: int, tags: Tags | None = None) -> Score:
    """Return a song for training; any number from 0 below `HELD_OUT_SEED`."""
    return compose(tags or Tags(), training_lyrics(number).text, number)


def held_out_song(number: int, tags: Tags | None = None) -> Score:
    """Return a song for tests, of four lines that no song for training has; any number from 0."""
    return compose(tags or Tags(), held_out_lyrics(number).text, HELD_OUT_SEED + number)


def training_songs(first: int, count: int) -> Iterator[Score]:
    """Yield songs for training, one after the other."""
    yield from (training_song(number) for number in range(first, first + count))
