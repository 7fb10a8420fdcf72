"""Songs of the demo world: equal for equal arguments, as the tags say, and readable from their codes."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from train.demo import layout, reading
from train.demo.compose import compose
from train.demo.score import CHOICES, Tags, read_lyrics, read_tags
from train.demo.songs import held_out_song, training_song

TWICE = "[verse]\nhold on to the river and the river\n\n[chorus]\nriver river take me home again"


@pytest.mark.parametrize("number", range(4))
def test_a_song_is_read_back_from_its_codes(number: int) -> None:
    song = training_song(number) if number % 2 else held_out_song(number)
    heard = reading.read(song.codes)
    assert heard.words == song.words
    assert heard.tags == song.tags
    assert heard.key == song.key
    assert heard.chords == song.chords
    assert set(vars(heard.consistency).values()) == {1.0}


def test_repeated_words_are_told_apart_also_in_a_row() -> None:
    song = compose("", TWICE, 0)
    assert " ".join(reading.read(song.codes).words) == " ".join(TWICE.split("\n")[i] for i in (1, 4))


@pytest.mark.parametrize("kind", CHOICES)
def test_a_tag_does_what_it_says(kind: str) -> None:
    for tag in CHOICES[kind]:
        song = compose(Tags(**{kind: tag}), "take me home to the ocean\nhold on to me", 3)
        assert getattr(reading.read(song.codes).tags, kind) == tag


def test_every_set_of_tags_gives_codes_of_their_books() -> None:
    sizes = np.array(layout.SIZES)[:, None]
    for tempo, style, chords in product(CHOICES["tempo"], CHOICES["style"], CHOICES["chords"]):
        codes = compose(Tags(tempo=tempo, style=style, chords=chords), "come with me\n[chorus]\nto the moon", 1).codes
        assert (codes >= 0).all()
        assert (codes < sizes).all()


def test_equal_arguments_give_equal_songs_and_another_seed_another_one() -> None:
    one, same, other = (compose("piano,sad", TWICE, seed) for seed in (5, 5, 6))
    assert np.array_equal(one.codes, same.codes)
    assert not np.array_equal(one.codes[:, :40], other.codes[:, :40])


def test_lyrics_have_sections_with_and_without_marks() -> None:
    assert [line.is_chorus for line in read_lyrics("one\n[Verse]\nTwo, too\n\n[chorus]\nthree\n\n")] == [
        False,
        False,
        True,
    ]
    assert read_lyrics("Hold on!\n[intro]\n\n")[0].words == ("hold", "on")


@pytest.mark.parametrize(
    ("tags", "lyrics", "said"),
    [
        ("piano,trumpet", "my home", "'trumpet' is not known"),
        ("slow,fast", "my home", "'fast' contradicts 'slow'"),
        ("", "my home xylophone zebra", "xylophone, zebra"),
        ("", "[verse]\n", "no words"),
    ],
)
def test_what_the_world_does_not_have_is_refused_by_name(tags: str, lyrics: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        compose(tags, lyrics, 0)


def test_tags_are_read_as_they_are_written() -> None:
    song = training_song(1)
    assert read_tags(song.tags.text) == song.tags


def test_damaged_codes_lower_the_shares_that_look_at_them() -> None:
    codes = training_song(0).codes.copy()
    codes[layout.CLOCK, 10] += 1
    codes[layout.ATOM_1, codes[layout.NOTE] > 0] = 0
    codes[layout.LOW, ::2] ^= 1
    codes[layout.CHORD, -1] = layout.CODEBOOK_SIZE + 3
    heard = reading.read(codes).consistency
    assert heard.clock < 1
    assert heard.spelling < 0.5
    assert heard.band < 0.6
    assert heard.valid < 1


def test_codes_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected \[8, frame\]"):
        reading.read(np.zeros((7, 3), int))
