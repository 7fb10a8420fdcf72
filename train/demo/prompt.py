"""The demo preset's tokenizer: a token for each word, tag, section mark and line break.

A word that stands several times in a text has one of four tokens, by how often it still follows there: 0, 1, 2 or 3,
then 0 again. The score's cursor counts in the same way, so that each occurrence in the prompt has its own codes. The
tokenizer does it by lookahead: what follows is searched for the same word, at most `_GAP` characters from one
occurrence to the next and at most `_CHAIN` of them, in one pass without going back.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

from heartvoice.config.presets import DEMO_IDS, GenerationIds
from heartvoice.contracts.texts import SECTION_MARKS, TAG_END, TAG_START
from heartvoice.models.prompt import Prompt, build_prompt
from train.demo import words
from train.demo.score import CHOICES

EMPTY, UNKNOWN, BOS, EOS = "<empty>", "<unknown>", "<begin>", "<end>"
_MARKS = ("", "\ue001", "\ue002", "\ue003")
"""What the normaliser puts before a word that still follows so often: characters that no text has."""
N_USES = len(_MARKS)
_GAP = 400
_CHAIN = 2
"""Rounds of four occurrences."""
_WORD = r"(?>(\w{1,30}))(?!\w)"
_SAME = r"(?<![\w\[])\1(?!\w)"
_BETWEEN = rf"(?>(?:(?!{_SAME})[\s\S]){{0,{_GAP}}})"


def _tag_words() -> list[str]:
    known = {word for tags in CHOICES.values() for tag in tags for word in tag.split()} | {"voice"}
    return sorted(known)


@lru_cache(maxsize=1)
def vocabulary() -> dict[str, int]:
    """Return the id of each token."""
    marks = [f"[{mark}]" for mark in SECTION_MARKS]
    plain = [EMPTY, UNKNOWN, BOS, EOS, TAG_START, TAG_END, "\n", *marks]
    sung = list(words.phonemes())
    plain += [word for word in _tag_words() if word not in sung]
    return {token: number for number, token in enumerate(plain + [mark + word for mark in _MARKS for word in sung])}


def word_token(word: str, following: int) -> int:
    """Return the id of a word of the vocabulary that is sung `following` more times."""
    return vocabulary()[_MARKS[following % N_USES] + word]


def token_word(token: int) -> tuple[str, int] | None:
    """Return word and uses that follow of a token, the latter in 0 to 3; None for tokens that are no words."""
    sung = list(words.phonemes())
    place = token - (generation_ids().first_word_id or 0)
    return None if place < 0 else (sung[place % len(sung)], place // len(sung))


def generation_ids() -> GenerationIds:
    """Return the ids of `gen_config.json`, which says that only the words of `train.demo.words` are sung."""
    return replace(DEMO_IDS, first_word_id=len(vocabulary()) - N_USES * len(words.phonemes()))


def _counted(uses: int) -> normalizers.Replace:
    """Mark the words that still follow `uses` times, four or eight times left out."""
    one = _BETWEEN + _SAME
    blank = rf"[ ](?={_WORD}(?>(?:(?:{one}){{4}}){{0,{_CHAIN}}})(?>(?:{one}){{{uses}}})(?!{one}))"
    return normalizers.Replace(Regex(blank), " " + _MARKS[uses])


@lru_cache(maxsize=1)
def tokenizer() -> Tokenizer:
    """Build the tokenizer; it adds no BOS."""
    made = Tokenizer(models.WordLevel(vocabulary(), unk_token=UNKNOWN))
    made.normalizer = normalizers.Sequence([
        normalizers.NFC(),
        normalizers.Lowercase(),
        normalizers.Replace(Regex(r"[^\w\[\]\n]+"), " "),
        normalizers.Replace(Regex(r"[ ]?\n[ \n]*"), " \n "),
        normalizers.Prepend(" "),
        *(_counted(uses) for uses in range(1, N_USES)),
    ])  # fmt: skip
    pieces = Regex(r"\n|\[[a-z]+\]|[\ue001-\ue003]?\w+")
    made.pre_tokenizer = pre_tokenizers.Split(pieces, behavior="removed", invert=True)
    made.add_special_tokens([AddedToken(tag, normalized=False) for tag in (TAG_START, TAG_END)])
    return made


def tokenizer_json() -> str:
    """Return the text of `tokenizer.json`."""
    text: str = tokenizer().to_str(pretty=True)
    return text + "\n"


def prompt_of(tags: str, lyrics: str) -> Prompt:
    """Return the prompt that the server makes of canonical tags and lyrics."""
    return build_prompt(tags, lyrics, tokenizer(), generation_ids(), text_vocab_size=len(vocabulary()))
