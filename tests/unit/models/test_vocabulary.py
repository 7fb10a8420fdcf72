"""Words outside a closed vocabulary: named, and sung as their nearest sound, left out or refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from heartvoice.config.presets import GenerationIds
from heartvoice.contracts.texts import canonical_lyrics
from heartvoice.errors import CheckpointError, InvalidRequestError
from heartvoice.export.tokenizer_file import byte_tokenizer
from heartvoice.models.vocabulary import LyricVocabulary
from train.demo import prompt, words

KNOWN = ("a", "bridge", "broken", "clock", "cold", "come", "dream", "heart", "home", "love", "o", "river", "run",
         "singing", "star", "the", "will", "you", "your")  # fmt: skip


@pytest.fixture(scope="module")
def vocabulary() -> LyricVocabulary:
    return LyricVocabulary(KNOWN)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> LyricVocabulary:
    path = tmp_path_factory.mktemp("weights") / "tokenizer.json"
    path.write_text(prompt.tokenizer_json())
    found = LyricVocabulary.open(path, prompt.generation_ids())
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("word", "nearest"),
    [
        ("rivers", "river"), ("river's", "river"), ("hearts", "heart"), ("loved", "love"), ("dreaming", "dream"),
        ("singin", "singing"), ("hart", "heart"), ("youre", "your"), ("gold", "cold"), ("cum", "come"),
        ("étoile", "will"), ("HÉART", "heart"), ("o'clock", "clock"), ("2stars", "star"), ("stɑr", "star"),
        ("24", None), ("любовь", None), ("川", None), ("'", None),
    ],
)  # fmt: skip
def test_the_nearest_sound(vocabulary: LyricVocabulary, word: str, nearest: str | None) -> None:
    assert vocabulary.nearest(word) == nearest


def test_ties_go_by_the_alphabet() -> None:
    found = {LyricVocabulary(order).nearest("zzz") for order in (["be", "at", "of"], ["of", "be", "at"])}
    assert found == {"at"}


@pytest.mark.parametrize(
    ("lyrics", "sung", "replaced"),
    [
        ("The River,\nrun HOME!", "the river\nrun home", {}),
        ("heart-broken 'love'", "heart broken love", {}),
        ("Rivers run, rivers RIVERS", "river run river river", {"Rivers": "river"}),
        ("you’re the 1st", "your the star", {"you’re": "your", "1st": "star"}),
        ("24 hearts\n7\nrun", "heart\nrun", {"24": "", "hearts": "heart", "7": ""}),
        ("[Verse 2]\nrun\n\n[hook]\nChorus:\nrun", "[verse]\nrun\n\n[chorus]\nrun", {}),
        ("run [solo] run", "run run", {}),
        ("the river\u0308", "the river", {"river\u0308": "river"}),
        ("love_river", "love river", {}),
        ("] run [ <run>", "run run", {}),
        ("", "", {}),
        ("[intro]", "[intro]", {}),
    ],
)
def test_lyrics_are_sung_with_known_words(
    vocabulary: LyricVocabulary, lyrics: str, sung: str, replaced: dict[str, str]
) -> None:
    found = vocabulary.sung(canonical_lyrics(lyrics), "nearest")
    assert (found.text, dict(found.replaced)) == (sung, replaced)
    assert vocabulary.sung(found.text, "refuse").text == sung
    skipped = vocabulary.sung(canonical_lyrics(f"love\n{lyrics}"), "skip")
    assert dict(skipped.replaced) == dict.fromkeys(replaced, "")
    assert not set(skipped.text.split()) & set(replaced.values()) - set(sung.split())


@pytest.mark.parametrize(
    ("lyrics", "mode", "message"),
    [
        ("the Jane runs", "refuse", r"lyrics: expected words of .* 19 words, got Jane, runs; replace them, or choose"),
        ("24 любовь", "nearest", r"lyrics: expected at least one .*: 24, любовь; write words of the vocabulary$"),
        ("[verse]\nJane", "skip", r"got none that can be sung: Jane; .*, or choose unknown_words nearest"),
        (" ".join(f"w{chr(97 + n)}" for n in range(20)), "refuse", "wl and 8 more;"),
        ("x" * 9000, "refuse", r"got x{40}\.\.\.;"),
    ],
)
def test_what_cannot_be_sung_is_refused(vocabulary: LyricVocabulary, lyrics: str, mode: str, message: str) -> None:
    for read in (vocabulary.check, vocabulary.sung):
        with pytest.raises(InvalidRequestError, match=message):
            read(lyrics, mode)


def test_a_warning_names_every_word(vocabulary: LyricVocabulary) -> None:
    (told,) = vocabulary.warnings({"Jane": "run", "24": ""})
    assert told == "lyrics: not in the model's vocabulary of 19 words: Jane (sung as run), 24 (left out)"
    assert vocabulary.warnings({}) == ()
    assert vocabulary.warnings(dict.fromkeys(map(str, range(103)), ""))[0].endswith("99 (left out) and 3 more")


def test_the_demo_preset_s_vocabulary_is_that_of_its_tokenizer(demo: LyricVocabulary) -> None:
    assert len(demo) == len(words.phonemes())
    for word in words.phonemes():
        assert dict(demo.sung(word, "refuse").replaced) == {}
    assert demo.sung("female", "nearest").replaced.keys() == {"female"}, "a word of tags is no word to sing"


def test_known_lyrics_make_the_prompt_that_they_made(demo: LyricVocabulary) -> None:
    lyrics = canonical_lyrics("[Verse]\nThe river, the RIVER;\n'turning' home!\n\n[Chorus]\nhome - home?")
    sung = demo.sung(lyrics, "refuse")
    assert prompt.prompt_of("pop", sung.text).text_ids.tolist() == prompt.prompt_of("pop", lyrics).text_ids.tolist()


def test_what_is_sung_instead_counts_among_the_repeated_words(demo: LyricVocabulary) -> None:
    sung = demo.sung("river rivers river's home", "nearest")
    tokens = [prompt.token_word(number) for number in prompt.prompt_of("", sung.text).text_ids.tolist()]
    assert [token for token in tokens if token] == [("river", 2), ("river", 1), ("river", 0), ("home", 0)]


def test_a_vocabulary_is_open_unless_its_ids_say_that_it_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    assert LyricVocabulary.open(path, GenerationIds()) is None
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: expected a tokenizer file"):
        LyricVocabulary.open(path, GenerationIds(first_word_id=1))
    path.write_text(json.dumps({"model": {"type": "Unigram"}}))
    with pytest.raises(CheckpointError, match="expected a tokenizer file"):
        LyricVocabulary.open(path, GenerationIds(first_word_id=1))
    path.write_text(byte_tokenizer(320))
    with pytest.raises(CheckpointError, match="expected words from id 9999 on"):
        LyricVocabulary.open(path, GenerationIds(first_word_id=9999))
