"""The lyric error: which edits count, and which lyrics are not judged at all."""

from __future__ import annotations

import numpy as np
import pytest

from heartvoice.errors import InvalidRequestError
from heartvoice.evaluation.lyrics import lyric_error
from tests.fakes.whisper import Said, lyric_judge

ONE_S = np.zeros(16_000, np.float32)
LAMP = "[chorus]\nSo leave a lamp on for me, leave the radio low"


@pytest.mark.parametrize(
    ("heard", "error", "counts"),
    [
        ("a b c d", 0.0, (0, 0, 0)),
        ("a x c d", 0.25, (1, 0, 0)),
        ("a c d", 0.25, (0, 1, 0)),
        ("a b c c d", 0.25, (0, 0, 1)),
        ("", 1.0, (0, 4, 0)),
        ("v w x y z a b c d", 1.25, (0, 0, 5)),
    ],
)
def test_edits_are_counted_over_the_words_of_the_lyrics(heard: str, error: float, counts: tuple[int, int, int]) -> None:
    made = lyric_error(["a", "b", "c", "d"], heard.split(), heard)
    assert made.error == pytest.approx(error)
    assert (made.substituted, made.deleted, made.inserted) == counts


def test_both_sides_are_held_against_the_same_words() -> None:
    made = lyric_judge(Said("So leave a lamp on for me, leave the radio low."), Said("Leave the lamp.")).judge(
        LAMP, {"before": ONE_S, "after": ONE_S}
    )
    assert (made.language, made.unit, made.n_units) == ("en", "word", 11)
    assert made.errors["before"].error == 0.0
    assert made.errors["after"].error == pytest.approx(9 / 11)
    assert made.errors["after"].heard == "Leave the lamp."


def test_windows_without_words_add_none() -> None:
    lines = (Said("So leave a lamp on for me,"), Said("Thank you.", no_speech=0.9), Said("leave the radio low"))
    made = lyric_judge(*lines).judge(LAMP, {"after": np.zeros(80 * 16_000, np.float32)})
    assert made.errors["after"].error == 0.0


def test_characters_are_the_units_where_words_have_no_blanks() -> None:
    made = lyric_judge(Said("月亮代表你的心。"), multilingual=True).judge("月亮代表我的心", {"after": ONE_S})
    assert (made.language, made.unit, made.n_units) == ("zh", "character", 7)
    assert made.errors["after"].error == pytest.approx(1 / 7)


@pytest.mark.parametrize(
    ("lyrics", "reason"),
    [
        (
            "Je laisse une lampe allumée pour toi, la radio tout bas",
            "does not know 'fr', it knows en; Whisper small .*--lyric-model",
        ),
        ("la la la", "unclear: name it with --lyrics-language"),
        ("[intro]\n[outro]", "unclear"),
    ],
)
def test_lyrics_that_cannot_be_judged_give_a_reason_and_no_number(lyrics: str, reason: str) -> None:
    with pytest.raises(InvalidRequestError, match=reason):
        lyric_judge(Said("hello")).judge(lyrics, {"after": ONE_S})


def test_a_named_language_is_believed() -> None:
    judge = lyric_judge(Said("La la la!"), language="en")
    assert judge.judge("la la la", {"after": ONE_S}).errors["after"].error == 0.0
    with pytest.raises(InvalidRequestError, match="the lyrics have no words"):
        judge.judge("[intro]", {"after": ONE_S})


def test_a_language_that_the_model_does_not_know_is_refused_at_once() -> None:
    with pytest.raises(InvalidRequestError, match="lyrics language: Whisper fake does not know 'fr'"):
        lyric_judge(Said("hello"), language="fr")
