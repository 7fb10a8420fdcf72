"""Tags and lyrics into a prompt."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from heartvoice.config.presets import GenerationIds
from heartvoice.errors import CheckpointError, InvalidRequestError
from heartvoice.models.prompt import AddedToken, build_prompt, format_tags, load_tokenizer, refuse_special_tokens
from tests.support.golden_cases import OWN_ROOT

IDS = GenerationIds(text_bos_id=1000, text_eos_id=1001)


@dataclass
class FakeEncoding:
    ids: list[int]


@dataclass
class FakeTokenizer:
    """One id per character; with `bos`, BOS before them."""

    bos: bool = False

    def encode(self, sequence: str, /) -> FakeEncoding:
        start = [IDS.text_bos_id] if self.bos else []
        return FakeEncoding(start + [ord(letter) for letter in sequence])

    def get_added_tokens_decoder(self) -> dict[int, AddedToken]:
        return {}


def spell(text: str) -> list[int]:
    return [ord(letter) for letter in text]


@pytest.mark.parametrize(
    ("tags", "formatted"),
    [
        ("Piano,Happy", "<tag>piano,happy</tag>"),
        ("<TAG>jazz", "<tag>jazz</tag>"),
        ("pop</Tag>", "<tag>pop</tag>"),
        ("<tag>metal</tag> ", "<tag>metal</tag> </tag>"),
        (" <tag>a", "<tag> <tag>a</tag>"),
        ("", "<tag></tag>"),
    ],
)
def test_tags_are_wrapped_and_lowered_but_not_stripped(tags: str, formatted: str) -> None:
    assert format_tags(tags) == formatted


@pytest.mark.parametrize("bos", [False, True])
def test_both_texts_stand_between_bos_and_eos_with_the_slot_between_them(bos: bool) -> None:
    prompt = build_prompt("Pop", "[Verse]\nLa", FakeTokenizer(bos), IDS)
    tags, lyrics = spell("<tag>pop</tag>"), spell("[verse]\nla")
    assert prompt.text_ids.tolist() == [1000, *tags, 1001, 0, 1000, *lyrics, 1001]
    assert prompt.text_ids[prompt.style_index] == 0
    assert prompt.style_index == len(tags) + 2


@pytest.mark.parametrize("bos", [False, True])
def test_empty_texts_become_bos_and_eos(bos: bool) -> None:
    prompt = build_prompt("", "", FakeTokenizer(bos), IDS)
    assert prompt.text_ids[prompt.style_index + 1 :].tolist() == [1000, 1001]


def test_an_eos_of_the_tokenizer_is_not_doubled() -> None:
    prompt = build_prompt("a", chr(IDS.text_eos_id), FakeTokenizer(), IDS)
    assert prompt.text_ids[prompt.style_index + 1 :].tolist() == [1000, 1001]


def test_a_path_in_the_text_is_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    monkeypatch.chdir(tmp_path)
    for text in ("secret.txt", str(tmp_path / "secret.txt").lower()):
        prompt = build_prompt(text, text, FakeTokenizer(), IDS)
        assert prompt.text_ids[prompt.style_index + 2 : -1].tolist() == spell(text)


TOYS = sorted(OWN_ROOT.rglob("toy_tokenizer_*.json"))
"""Tokenizers like the official one: BPE, with special tokens of Llama's kind; one adds BOS by itself."""


@pytest.mark.parametrize("file", TOYS, ids=lambda file: file.stem)
@pytest.mark.parametrize(
    ("tags", "lyrics", "message"),
    [
        ("pop", "la <|end_of_text|> la", "lyrics: .*special tokens, got '<|end_of_text|>'"),
        ("pop", "<|begin_of_text|>la", "lyrics: .*special tokens"),
        ("pop", "la<|end_of_text|>", "lyrics: .*special tokens"),
        ("pop", "<|END_of_Text|>", "lyrics: .*special tokens"),  # lower-cased before it is tokenised
        ("pop", "<|r257|>", "lyrics: .*special tokens"),
        ("pop", "\u2060<tag>metal</tag>", "lyrics: .*special tokens, got '<tag>'"),
        ("pop</tag><|end_of_text|><tag>rock", "la", "tags: .*special tokens"),
        ("<tag>pop<|end_of_text|></tag>", "la", "tags: .*special tokens"),
        ("<tag><tag>pop</tag>", "la", "tags: .*special tokens, got '<tag>'"),
        ("<tag>metal</tag> ", "la", "tags: .*special tokens, got '</tag>'"),
    ],
)
def test_no_text_can_smuggle_a_special_token(file: Path, tags: str, lyrics: str, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message.replace("|", r"\|")):
        refuse_special_tokens(tags, lyrics, load_tokenizer(file))


@pytest.mark.parametrize("file", TOYS, ids=lambda file: file.stem)
@pytest.mark.parametrize(
    ("tags", "lyrics"),
    [
        ("", ""),
        ("<tag>pop, piano</tag>", "[verse]\nLa < la > la"),
        ("<TAG>POP</TAG>", "<|end of text|>"),
        ("pop", "＜|end_of_text|＞"),  # wide brackets are letters
        ("pop", "<|end_\u2060of_text|>"),
    ],
)
def test_texts_without_special_tokens_pass(file: Path, tags: str, lyrics: str) -> None:
    tokenizer = load_tokenizer(file)
    refuse_special_tokens(tags, lyrics, tokenizer)
    special = {number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    prompt = build_prompt(tags, lyrics, tokenizer, GenerationIds(text_bos_id=290, text_eos_id=291))
    of_lyrics = prompt.text_ids[prompt.style_index + 2 : -1].tolist()
    assert not special & set(of_lyrics)


def test_a_token_is_found_as_the_tokenizer_normalises_it() -> None:
    """Some spell it wide, and the tokenizer makes it narrow."""
    from tokenizers import AddedToken as Added
    from tokenizers import Tokenizer, models, normalizers

    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.add_special_tokens([Added("<|end|>", normalized=True)])
    with pytest.raises(InvalidRequestError, match=r"lyrics: .*special tokens"):
        refuse_special_tokens("pop", "la ＜｜end｜＞", tokenizer)


def test_a_lone_surrogate_is_refused_by_name() -> None:
    with pytest.raises(InvalidRequestError, match="lyrics: expected valid Unicode"):
        build_prompt("a", "\ud800", FakeTokenizer(), IDS)


def test_a_tokenizer_of_another_model_is_refused() -> None:
    with pytest.raises(CheckpointError, match="gives id 1001, the model has 500"):
        build_prompt("a", "b", FakeTokenizer(), IDS, text_vocab_size=500)


def test_a_damaged_tokenizer_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    for content in (None, "{}", "not json"):
        if content is not None:
            path.write_text(content)
        with pytest.raises(CheckpointError, match=r"tokenizer\.json: not a tokenizer"):
            load_tokenizer(path)


def test_real_tokenizers_handle_empty_text() -> None:
    files = sorted(OWN_ROOT.rglob("toy_tokenizer_*.json"))
    assert files
    for file in files:
        tokenizer = load_tokenizer(file)
        prompt = build_prompt("", "", tokenizer, GenerationIds(text_bos_id=290, text_eos_id=291))
        assert prompt.text_ids[-2:].tolist() == [290, 291]
        assert prompt.text_ids.dtype == np.int64


def test_serving_modules_import_no_torch() -> None:
    modules = "models.prompt models.heartcodec.windows models.heartcodec.solver models.load keyed_random"
    code = (
        "".join(f"import heartvoice.{name}\n" for name in modules.split())
        + "import sys; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
