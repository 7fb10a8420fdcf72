"""Same words, same song: one form of lyrics, tags and consent for client, gateway and server."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartvoice.client.inputs import job_inputs
from heartvoice.client.requests import SongRequest, as_request
from heartvoice.config.presets import GenerationIds
from heartvoice.contracts.field_checks import read_consent
from heartvoice.contracts.texts import canonical_line, canonical_lyrics, canonical_tags, lyrics_warnings
from heartvoice.errors import InvalidRequestError, LyricsWarning
from heartvoice.models.prompt import build_prompt
from heartvoice.pipeline.song_request import SongRequest as ServerSong
from tests.fakes.networks import BytesTokenizer, text, tiny

PRESET = tiny()
LYRICS = "[verse]\nCafé au lait\n\n[chorus]\nLa la la"


@pytest.mark.parametrize(
    "typed",
    [
        LYRICS.replace("\n", "\r\n"),
        LYRICS.replace("\n", "\r"),
        LYRICS.replace("\n", "\r\r\n"),
        LYRICS.replace("\n", "\u2028"),
        LYRICS.replace("\n\n", "\u2029\r\n"),
        "\ufeff" + LYRICS,
        "\ufeff" + LYRICS.replace("[chorus]", "\ufeff[chorus]"),  # two files joined
        LYRICS.replace(" ", "\u200b \u2060") + "\u200e",  # from a web page
        LYRICS.replace("[chorus]", "\u00ad[chor\u00adus]"),  # from a word processor
        unicodedata.normalize("NFD", LYRICS),
        LYRICS + "\n",
        LYRICS + "\r\n\r\n",
        "\n\n" + LYRICS + " \t\n",
        LYRICS.replace("\n", " \n"),
        LYRICS.replace("\n", "\n    "),
        LYRICS.replace(" ", "\u00a0"),
        LYRICS.replace(" ", "  \t"),
        LYRICS.replace("\n\n", "\n \n\n\n"),
    ],
)
def test_the_same_lyrics_are_one_text(typed: str) -> None:
    assert canonical_lyrics(typed) == LYRICS


@pytest.mark.parametrize(
    "typed",
    [
        "pop, piano, female vocal",
        "pop ,piano , female  vocal",
        " pop,piano,female vocal\n",
        "\ufeffpop,\r\npiano,\r\nfemale vocal,\r\n",
        "pop\npiano\nfemale vocal",
        "\u200fpop,\u200bpiano,\u00adfemale vocal\u2060",
        "pop,,piano,\t, female\u00a0vocal,",
        "pop，piano、female vocal",
    ],
)
def test_tags_are_apart_by_a_comma_alone_as_in_training(typed: str) -> None:
    assert canonical_tags(typed) == "pop,piano,female vocal"


@pytest.mark.parametrize(
    ("typed", "form"),
    [
        ("<tag>pop, piano</tag>", "<tag>pop,piano</tag>"),
        (" <TAG> Pop , piano </Tag>\n", "<tag>Pop,piano</tag>"),
        ("pop, piano</tag>", "pop,piano</tag>"),
        ("<tag><tag>pop</tag>", "<tag><tag>pop</tag>"),  # refused by the server: one mark is the caller's
        ("<tag> , </tag>", ""),
        (" \n, ", ""),
    ],
)
def test_marks_around_tags_stay(typed: str, form: str) -> None:
    assert canonical_tags(typed) == form


@pytest.mark.parametrize("other", ["la\nla", "la la la", "La, la", "la-la", "lá la"])
def test_other_words_stay_other_words(other: str) -> None:
    assert canonical_lyrics(other) == other != canonical_lyrics("la la")


@given(
    st.text(st.sampled_from("aé\u0301 \u00a0\u00ad\u200b\n\r\t\u2028\ufeff,，<>/tagTAG\u0338\u1100\u1161"), max_size=24)
)
def test_a_text_may_pass_several_readers(typed: str) -> None:
    for canonical in (canonical_lyrics, canonical_tags, canonical_line):
        assert canonical(canonical(typed)) == canonical(typed)


SPELLINGS = (
    ("[verse]\ncafé", "pop,piano"),
    ("\ufeff[verse]\r\ncafe\u0301\r\n", "pop, piano"),
    ("[verse] \rcafé  ", "\ufeffpop , piano\n"),
    ("\n[Verse]\nCAFÉ", "<TAG>Pop, Piano</TAG>"),
)


@pytest.mark.parametrize(("lyrics", "tags"), SPELLINGS)
def test_every_way_to_the_model_ends_in_one_prompt(lyrics: str, tags: str) -> None:
    """A client's request, and one that another program sends as it is."""
    expected = build_prompt("pop,piano", "[verse]\ncafé", BytesTokenizer(), PRESET.ids)
    sent = job_inputs(SongRequest(lyrics, tags))
    assert not {b"\r", b" "} & {bytes([byte]) for byte in sent["tags"][0]}
    for inputs in (sent, {"lyrics": text(lyrics), "tags": text(tags)}):
        lm = ServerSong.from_inputs(inputs, PRESET).lm
        assert lm is not None
        prompt = build_prompt(lm.tags, lm.lyrics, BytesTokenizer(), PRESET.ids)
        assert prompt.text_ids.tolist() == expected.text_ids.tolist()


def test_a_text_without_words_is_a_missing_one() -> None:
    assert list(job_inputs(SongRequest("\ufeff\r\n", "pop"))) == ["tags"]
    assert list(job_inputs(SongRequest("la", " , "))) == ["lyrics"]
    with pytest.raises(InvalidRequestError, match="expected text in at least one"):
        job_inputs(SongRequest("\ufeff", ","))


def test_composed_letters_count_against_the_limit() -> None:
    shrinking, growing = "e\u0301" * 6666, "\U0001d160" * 5000  # 19 998 bytes to 13 332; 20 000 to 60 000
    assert len(job_inputs(SongRequest(shrinking))["lyrics"][0]) == 13_332
    with pytest.raises(InvalidRequestError, match="lyrics: expected at most 20000 UTF-8 bytes, got 60000"):
        job_inputs(SongRequest(growing))


@pytest.mark.parametrize(
    "typed", ["J. Doé's own voice", "\ufeffJ. Doe\u0301's  own\u00a0voice\r\n", " J. Doé's own voice "]
)
def test_a_consent_has_one_form_in_the_report(typed: str) -> None:
    inputs = {"voice": np.array([b"x"], np.object_), "voice_consent": text(typed)}
    assert read_consent(inputs) == "J. Doé's own voice"


def test_a_consent_is_counted_in_composed_letters() -> None:
    inputs = {"voice": np.array([b"x"], np.object_), "voice_consent": text("e\u0301" * 500)}
    assert len(read_consent(inputs)) == 500


def test_the_official_form_of_tags_passes_unchanged() -> None:
    """The example of the weights' publisher."""
    tags = "piano,happy,wedding,synthesizer,romantic"
    assert canonical_tags(tags) == tags
    ids = build_prompt(canonical_tags("Piano, Happy"), "", BytesTokenizer(), GenerationIds(1000, 1001)).text_ids
    assert (
        ids.tolist() == build_prompt("piano,happy", "", BytesTokenizer(), GenerationIds(1000, 1001)).text_ids.tolist()
    )


@pytest.mark.parametrize(
    ("lyrics", "told"),
    [
        ("[Verse 2]\nla", "[Verse 2], probably [verse]"),
        ("[Pre-Chorus]\nla", "[Pre-Chorus], probably [prechorus]"),
        ("[hook]\nla", "[hook]"),
        ("la la [x2]", "[x2]"),
        ("Chorus:\nla", "Chorus:, probably [chorus]"),
        ("(Bridge)\nla", "(Bridge), probably [bridge]"),
        ("【副歌】\nla", "【副歌】"),
        ("【Verse】\nla", "【Verse】, probably [verse]"),
        ("[verse]\nla\n[a]\n[b]\n[a]\n[c]\n[d]\n[e]", "[a]; [b]; [c]; [d] and 1 more"),
        (f"[{'x' * 500}]", f"[{'x' * 39}"),
    ],
)
def test_marks_that_the_weights_were_not_made_for_are_told(lyrics: str, told: str) -> None:
    (warning,) = lyrics_warnings(canonical_lyrics(lyrics))
    assert f"model's publisher recommends: {told}. HeartMuLa reads them as words." in warning
    assert warning.endswith("[intro], [verse], [prechorus], [chorus], [bridge], [outro]")
    with pytest.warns(LyricsWarning, match="not among the section marks"):
        as_request(lyrics)


@pytest.mark.parametrize(
    "lyrics",
    ["", "[Intro]\n\n[VERSE]\nla\n\n[prechorus]\n[chorus]\n[bridge]\n[outro]", "[verse] la", "a bridge, a verse"],
)
def test_recommended_marks_and_words_are_not_told(lyrics: str, recwarn: pytest.WarningsRecorder) -> None:
    assert lyrics_warnings(canonical_lyrics(lyrics)) == as_request(lyrics, "pop").warnings == ()
    assert not recwarn.list
