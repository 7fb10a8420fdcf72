"""Builds HeartMuLa's prompt from tags and lyrics. Needs the `tokenizers` package; imports no torch.

Source: heartmula spec, section 8, with two corrections: a text that is also a valid path is text (the reference opens
the file), and an empty text is BOS and EOS (the reference fails).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from heartvoice.config.presets import GenerationIds
from heartvoice.contracts.texts import TAG_END, TAG_START
from heartvoice.errors import CheckpointError, InvalidRequestError


class Encoding(Protocol):
    """Result of a tokenizer."""

    @property
    def ids(self) -> list[int]:
        """Token ids."""


class AddedToken(Protocol):
    """A token that a tokenizer matches before it splits the text."""

    @property
    def content(self) -> str:
        """Text of the token."""

    @property
    def special(self) -> bool:
        """True if the token controls the model and is no text."""


class Tokenizer(Protocol):
    """The used part of `tokenizers.Tokenizer`."""

    def encode(self, sequence: str, /) -> Encoding:
        """Tokenise one text."""

    def get_added_tokens_decoder(self) -> Mapping[int, AddedToken]:
        """Added tokens by id."""


@dataclass(frozen=True)
class Prompt:
    """The text column of a prompt and the position of its style slot."""

    text_ids: npt.NDArray[np.int64]
    """[P]: tag ids, 0 in the style slot, lyric ids."""
    style_index: int

    def tokens(self, n_codebooks: int) -> npt.NDArray[np.int64]:
        """Return the reference's layout: int64 [P, n_codebooks + 1], with the text in the last column."""
        table = np.zeros((len(self.text_ids), n_codebooks + 1), np.int64)
        table[:, -1] = self.text_ids
        return table

    def mask(self, n_codebooks: int) -> npt.NDArray[np.bool_]:
        """Return the reference's mask: bool [P, n_codebooks + 1], true in the text column."""
        table = np.zeros((len(self.text_ids), n_codebooks + 1), np.bool_)
        table[:, -1] = True
        return table


def load_tokenizer(path: Path | str) -> Tokenizer:
    """Open a `tokenizer.json`.

    Raises:
        CheckpointError: the file is missing or not a tokenizer.
    """
    import tokenizers

    try:
        tokenizer: Tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise CheckpointError(f"{path}: not a tokenizer file: {error}") from error
    return tokenizer


def format_tags(tags: str) -> str:
    """Lower-case tags and wrap them in `<tag>` and `</tag>` unless they already are.

    As the reference does, it strips nothing: requests bring their tags in the form of `contracts.texts`.
    """
    tags = tags.lower()
    if not tags.startswith(TAG_START):
        tags = TAG_START + tags
    if not tags.endswith(TAG_END):
        tags += TAG_END
    return tags


def refuse_special_tokens(tags: str, lyrics: str, tokenizer: Tokenizer) -> None:
    """Refuse texts that contain the prompt's special tokens.

    A tokenizer turns the name of a special token into that token anywhere in a text. A caller could otherwise end the
    lyrics, begin others, or write control tokens. Tags may begin with `<tag>` and end with `</tag>`.

    Args:
        tags: as sent.
        lyrics: as sent.
        tokenizer: the model's tokenizer.

    Raises:
        InvalidRequestError: the message gives field and token.
    """
    inner = format_tags(tags).removeprefix(TAG_START).removesuffix(TAG_END)
    special = {number: token.content for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    own = Counter(tokenizer.encode("").ids)  # a BOS that the tokenizer adds itself
    for field, text in (("tags", inner), ("lyrics", lyrics.lower())):
        found = [marker for marker in (TAG_START, TAG_END) if marker in text]
        # Compare ids, because the tokenizer normalises spellings.
        found += [special[number] for number in Counter(tokenizer.encode(text).ids) - own if number in special]
        if found:
            raise InvalidRequestError(f"{field}: expected text without the model's special tokens, got {found[0]!r}")


def build_prompt(
    tags: str, lyrics: str, tokenizer: Tokenizer, ids: GenerationIds, *, text_vocab_size: int | None = None
) -> Prompt:
    """Tokenise tags and lyrics, each between BOS and EOS, with the style slot between them.

    Args:
        tags: style words; may be empty.
        lyrics: the text to sing; section marks are plain text. May be empty.
        tokenizer: may or may not add a BOS itself.
        ids: BOS and EOS ids.
        text_vocab_size: the model's vocabulary size; None skips the check.

    Raises:
        InvalidRequestError: a text is not valid Unicode.
        CheckpointError: the tokenizer returns ids that the model does not have.
    """
    tag_ids = _encode("tags", format_tags(tags), tokenizer, ids)
    lyric_ids = _encode("lyrics", lyrics.lower(), tokenizer, ids)
    text_ids = np.array([*tag_ids, 0, *lyric_ids], np.int64)
    if text_vocab_size is not None and int(text_ids.max()) >= text_vocab_size:
        raise CheckpointError(f"tokenizer: gives id {text_ids.max()}, the model has {text_vocab_size} text ids")
    return Prompt(text_ids, len(tag_ids))


def _encode(field: str, text: str, tokenizer: Tokenizer, ids: GenerationIds) -> list[int]:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidRequestError(f"{field}: expected valid Unicode, got a lone surrogate") from error
    tokens = list(tokenizer.encode(text).ids)
    if not tokens or tokens[0] != ids.text_bos_id:
        tokens.insert(0, ids.text_bos_id)
    if tokens[-1] != ids.text_eos_id:
        tokens.append(ids.text_eos_id)
    return tokens
