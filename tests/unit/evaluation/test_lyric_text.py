"""Lyrics and transcripts become the same words, however they were written."""

from __future__ import annotations

from pathlib import Path

import pytest

from heartvoice.evaluation.lyric_text import language_of, lyric_words, words

ENGLISH = (Path(__file__).parents[3] / "examples/lyrics_long.txt").read_text()


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("Hello, WORLD!", "hello world"),
        ("I'm runnin’ ’cause you don’t", "im running cause you dont"),
        ("a sea-side café — naïve", "a sea side cafe naive"),
        ("in 1999, and in 2015", "in nineteen ninety nine and in twenty fifteen"),
        ("the 1st of 3 in the '80s", "the first of three in the eighties"),
        ("24/7, 9 to 5", "twenty four seven nine to five"),
        ("1,000,000 miles at 3.5", "one million miles at three point five"),
        ("$5 & 100%", "five dollars and one hundred percent"),
        ("call 8675309867", "call eight six seven five three zero nine eight six seven"),
        ("agent 007", "agent zero zero seven"),
        ("♪ oh... (oh)", "oh oh"),
        ("the harbour's colours, realised in grey theatres", "the harbors colors realized in gray theaters"),
        ("our hours, four of your tours, are wise", "our hours four of your tours are wise"),
        ("", ""),
    ],
)
def test_english_becomes_plain_words(written: str, expected: str) -> None:
    assert words(written, "en") == expected.split()


def test_a_number_of_any_length_is_read() -> None:
    assert words("9" * 5000, "en") == ["nine"] * 5000


@pytest.mark.parametrize(
    ("language", "written", "expected"),
    [
        ("fr", "J'ai 21 ans, l'été", ["jai", "vingt", "et", "un", "ans", "lété"]),
        ("de", "99 Luftballons", ["neunundneunzig", "luftballons"]),
        ("ja", "君の名は。 2人", ["君", "の", "名", "は", "二", "人"]),
        ("zh", "月亮, 代表", ["月", "亮", "代", "表"]),
        ("sw", "siku 5", ["siku", "5"]),  # no library knows its numbers
    ],
)
def test_other_languages_keep_their_letters(language: str, written: str, expected: list[str]) -> None:
    assert words(written, language) == expected


def test_section_marks_are_not_sung() -> None:
    lyrics = "[Verse 1]\nHello there\n\nChorus:\nagain 【Bridge】 hello\n[Outro x2]"
    assert lyric_words(lyrics, "en") == ["hello", "there", "again", "hello"]


@pytest.mark.parametrize(
    ("lyrics", "language"),
    [
        (ENGLISH, "en"),
        ("[verse]\nJe laisse une lampe allumée pour toi, la radio tout bas", "fr"),
        ("Mein Herz schlägt für dich in der Nacht", "de"),
        ("月亮代表我的心", "zh"),
        ("[chorus]\nla la la", None),
        ("[intro]", None),
        ("Amor, amor, amor", None),
    ],
)
def test_the_language_is_told_or_unclear(lyrics: str, language: str | None) -> None:
    assert language_of(lyrics) == language
