"""The demo preset's tokenizer: what training reads is what the server sends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from heartvoice.config.presets import DEMO_IDS, DEMO_LM
from heartvoice.contracts.texts import canonical_lyrics, canonical_tags
from heartvoice.errors import InvalidRequestError
from heartvoice.models.prompt import Tokenizer, build_prompt, load_tokenizer, refuse_special_tokens
from train.demo import prompt, words
from train.demo.layout import CLOCK, CLOCKS, CURSOR, Cursor, cursor_id
from train.demo.lm.examples import lyrics_text, random_lines
from train.demo.score import later_uses
from train.demo.songs import held_out_song


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path: Path = tmp_path_factory.mktemp("weights") / "tokenizer.json"
    path.write_text(prompt.tokenizer_json())
    return load_tokenizer(path)


def tokens_of(tags: str, lyrics: str) -> list[str]:
    names = {number: token for token, number in prompt.vocabulary().items()}
    return [names[number] for number in prompt.prompt_of(tags, lyrics).text_ids.tolist()]


@pytest.mark.parametrize(
    ("tags", "lyrics"),
    [
        ("pop,piano", "[verse]\nthe river and the rain"),
        (" Pop , female  voice,music box", "[Verse]\r\nThe river, and the rain!\r\n\r\n\r\n[Chorus]\r\n the\tsea \n"),
        ("<tag>slow</tag>", "unknown wörds 12 [solo] it's\u2028new line"),
        ("", ""),
    ],
)
def test_the_server_s_ids_are_training_s(served: Tokenizer, tags: str, lyrics: str) -> None:
    sent_tags, sent_lyrics = canonical_tags(tags), canonical_lyrics(lyrics)
    refuse_special_tokens(sent_tags, sent_lyrics, served)
    ids = build_prompt(sent_tags, sent_lyrics, served, DEMO_IDS, text_vocab_size=DEMO_LM.text_vocab_size)
    assert np.array_equal(ids.text_ids, prompt.prompt_of(sent_tags, sent_lyrics).text_ids)
    assert ids.style_index == prompt.prompt_of(sent_tags, sent_lyrics).style_index


def test_tags_marks_and_line_breaks_are_tokens() -> None:
    tokens = tokens_of("pop,female voice", "[verse]\nthe river\nturning home\n\n[chorus]\nstar and home")
    assert tokens == [
        "<begin>", "<tag>", "pop", "female", "voice", "</tag>", "<end>", "<empty>", "<begin>", "[verse]", "\n", "the",
        "river", "\n", "turning", "\ue001home", "\n", "[chorus]", "\n", "star", "and", "home", "<end>",
    ]  # fmt: skip


def test_every_token_has_an_id_of_the_model() -> None:
    vocabulary = prompt.vocabulary()
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))
    assert len(vocabulary) <= DEMO_LM.text_vocab_size
    assert vocabulary[prompt.EMPTY] == DEMO_IDS.empty_id
    assert (vocabulary[prompt.BOS], vocabulary[prompt.EOS]) == (DEMO_IDS.text_bos_id, DEMO_IDS.text_eos_id)
    for word in words.phonemes():
        for uses in range(prompt.N_USES):
            assert prompt.token_word(prompt.word_token(word, uses)) == (word, uses)
    assert prompt.token_word(vocabulary["\n"]) is None


@pytest.mark.parametrize("seed", range(8))
def test_prompt_and_cursor_tell_occurrences_apart_alike(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lines = random_lines(rng, 30, repeats=0.6)
    sung = [word for line in lines for word in line]
    text_ids = prompt.prompt_of("", lyrics_text(lines, rng)).text_ids.tolist()
    read = [found for number in text_ids if (found := prompt.token_word(number))]
    assert read == [(word, uses % prompt.N_USES) for word, uses in zip(sung, later_uses(sung), strict=True)]
    assert max(later_uses(sung)) >= 2


def test_a_song_s_codes_count_uses_as_its_prompt_does() -> None:
    song = held_out_song(3)  # with a repeated word
    read = [
        found for number in prompt.prompt_of("", song.lyrics).text_ids.tolist() if (found := prompt.token_word(number))
    ]
    assert [word for word, _ in read] == list(song.words)
    assert any(uses for _, uses in read)
    numbers = words.ids()
    starts = [0, *(np.flatnonzero(np.diff(song.codes[CURSOR])) + 1).tolist()][1:]
    assert len(starts) == len(read)
    for start, (word, uses) in zip(starts, read, strict=True):
        assert song.codes[CURSOR, start] == cursor_id(Cursor(numbers[word], uses % 2))
        assert song.codes[CLOCK, start] // CLOCKS == uses // 2


def test_special_tokens_in_lyrics_are_refused(served: Tokenizer) -> None:
    with pytest.raises(InvalidRequestError, match="lyrics"):
        refuse_special_tokens("pop", "the <tag> river", served)


@pytest.mark.parametrize("text", ["a " * 10_000, "the river and the rain " * 800, "a" * 20_000, "[" * 20_000])
def test_the_longest_texts_are_read(text: str) -> None:
    assert prompt.tokenizer().encode(text).ids is not None
