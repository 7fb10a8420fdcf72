"""Lyrics of the demo world: lengths, repeated words, and lines that training never has."""

from __future__ import annotations

import pytest

from train.demo import grammar, words


@pytest.mark.parametrize("number", range(4))
def test_held_out_lyrics_are_four_lines_that_training_never_has(number: int) -> None:
    lyrics = grammar.held_out_lyrics(number)
    assert len(lyrics.lines) == 4
    assert all(5 <= len(line.split()) <= 8 for line in lyrics.lines)
    assert all(grammar.is_held_out(line) for line in lyrics.lines)
    sung = " ".join(lyrics.lines).split()
    assert (len(set(sung)) < len(sung)) == (number == 3)
    assert lyrics == grammar.held_out_lyrics(number)


def test_training_lyrics_have_no_held_out_line() -> None:
    lyrics = [grammar.training_lyrics(seed) for seed in range(20)]
    assert not any(grammar.is_held_out(line) for each in lyrics for line in each.lines)
    assert {len(each.lines) for each in lyrics} == set(range(1, 7))


def test_the_vocabulary_has_phonemes_and_syllables() -> None:
    assert words.main([]) == 0
    assert len(words.phonemes()) >= 300
    assert [(s.onset, s.nucleus, s.coda) for s in words.syllables("stranger")] == [("stɹ", "A", "n"), ("ʤ", "ə", "ɹ")]
    assert all(words.syllables(word) for word in words.phonemes())


def test_lyrics_whose_first_line_leaves_no_words_for_another_are_begun_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ("we are dancing slowly tonight", "we can follow every star", "nobody can find your song")
    monkeypatch.setattr(grammar, "PATTERNS", lines)
    for seed in range(6):
        lyrics = grammar.write_lyrics(seed, 2, repeats=False, keep=lambda _: True)
        assert set(lyrics.lines) == {lines[0], lines[2]}
