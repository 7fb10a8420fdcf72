"""A closed vocabulary of words to sing: what it lacks is told, and sung as its nearest sound, left out or refused.

A word is a run of letters, marks and digits, with apostrophes inside. Capitals do not matter, nor does punctuation. How
a word sounds is guessed from its Latin letters, accents left out: what has none, such as numbers and other scripts, has
no nearest word and is left out.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from heartvoice.config.presets import GenerationIds
from heartvoice.contracts.texts import SECTION_MARKS, canonical_lyrics, with_known_marks, without_section_marks
from heartvoice.errors import CheckpointError, InvalidRequestError

_APOSTROPHES = "'\u2018\u2019\u02bc"
_MARK = re.compile(rf"(\[(?:{'|'.join(SECTION_MARKS)})\])")
_WORD = re.compile(rf"[^ {_APOSTROPHES}]+(?:[{_APOSTROPHES}]+[^ {_APOSTROPHES}]+)*")
"""A word of a text by `_spaced`."""
_NO_LATIN_LETTERS = re.compile("[^a-z]")
_SHOWN_WORDS, _REFUSED_WORDS, _SHOWN_CHARS = 100, 12, 40
_CACHED = 4096
_HEARD = 64
"""Letters of a word that its sound is guessed from."""


@dataclass(frozen=True)
class SungLyrics:
    """Lyrics whose every word is in a vocabulary.

    Attributes:
        text: canonical lyrics of known words and recommended section marks, without punctuation.
        replaced: each word that is not in the vocabulary, as it was first written, with the word that is sung instead;
            "" if it is left out.
    """

    text: str
    replaced: Mapping[str, str] = field(default_factory=dict)


class LyricVocabulary:
    """The words that a language model sings, if it sings no others. Safe in all threads."""

    def __init__(self, words: Iterable[str]) -> None:
        """Sort the words, so that ties between sounds are resolved by the alphabet.

        Args:
            words: in lower case.
        """
        self._words = dict.fromkeys(sorted(words))
        self._sounds: dict[str, tuple[str, str]] = {}
        self._nearest = lru_cache(maxsize=_CACHED)(self._search)

    @classmethod
    def open(cls, tokenizer: Path, ids: GenerationIds) -> LyricVocabulary | None:
        """Read a tokenizer's words; None if its vocabulary is open, and it reads any text.

        Args:
            tokenizer: path of `tokenizer.json`.
            ids: name the first token that is a word.

        Raises:
            CheckpointError: the file is missing or has no words.
        """
        first = ids.first_word_id
        if first is None:
            return None
        try:
            tokens: Mapping[str, int] = json.loads(tokenizer.read_text(encoding="utf-8"))["model"]["vocab"]
            words = {_without_private_use(token) for token, number in tokens.items() if number >= first}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{tokenizer}: expected a tokenizer file with a vocabulary: {error}") from error
        if not words:
            raise CheckpointError(f"{tokenizer}: expected words from id {first} on, got {len(tokens)} other tokens")
        return cls(words)

    def __len__(self) -> int:
        return len(self._words)

    def check(self, lyrics: str, mode: str) -> None:
        """Refuse lyrics of which nothing would be sung, and if `mode` is "refuse" those with unknown words.

        Compares no sounds, so it is quick for any text.

        Args:
            lyrics: canonical.
            mode: one of `UNKNOWN_WORDS_MODES`.

        Raises:
            InvalidRequestError: names the words, and what to do.
        """
        found = _pieces(without_section_marks(lyrics))
        unknown = list(dict.fromkeys(word for word in found if _spelled(word) not in self._words))
        if unknown and mode == "refuse":
            raise InvalidRequestError(
                f"lyrics: expected words of the model's vocabulary of {len(self)} words, got {_shown(unknown)}; "
                "replace them, or choose unknown_words nearest or skip"
            )
        sung = any(_spelled(word) in self._words or (mode == "nearest" and _letters(word)) for word in found)
        if found and not sung:
            hint = "" if mode == "nearest" else ", or choose unknown_words nearest"
            raise InvalidRequestError(
                f"lyrics: expected at least one word of the model's vocabulary of {len(self)} words, got none that can "
                f"be sung: {_shown(unknown)}; write words of the vocabulary{hint}"
            )

    def sung(self, lyrics: str, mode: str) -> SungLyrics:
        """Replace or leave out the words that are not in the vocabulary.

        Lyrics that it has made stay as they are.

        Args:
            lyrics: canonical.
            mode: one of `UNKNOWN_WORDS_MODES`.

        Raises:
            InvalidRequestError: as `check`.
        """
        self.check(lyrics, mode)
        replaced: dict[str, str] = {}
        written: dict[str, str] = {}  # how an unknown word was first written
        lines = []
        for line in with_known_marks(lyrics).split("\n"):
            pieces = []
            for piece in _pieces(line):
                spelled = _spelled(piece)
                if piece.startswith("[") or spelled in self._words:
                    pieces.append(spelled)
                    continue
                if spelled not in written:
                    written[spelled] = piece
                    replaced[piece] = self.nearest(piece) or "" if mode == "nearest" else ""
                pieces.append(replaced[written[spelled]])
            if any(pieces) or not line:
                lines.append(" ".join(piece for piece in pieces if piece))
        return SungLyrics(canonical_lyrics("\n".join(lines)), replaced)

    def nearest(self, word: str) -> str | None:
        """Return the word of the vocabulary that sounds most alike; None for a word without Latin letters."""
        letters = _letters(word)[:_HEARD]
        return self._nearest(letters) if letters else None

    def warnings(self, replaced: Mapping[str, str]) -> tuple[str, ...]:
        """Say in one sentence which words were unknown, and what is sung instead."""
        if not replaced:
            return ()
        told = [
            f"{_cut(word)} (sung as {sung})" if sung else f"{_cut(word)} (left out)" for word, sung in replaced.items()
        ]
        more = f" and {len(told) - _SHOWN_WORDS} more" if len(told) > _SHOWN_WORDS else ""
        return (f"lyrics: not in the model's vocabulary of {len(self)} words: {', '.join(told[:_SHOWN_WORDS])}{more}",)

    def _search(self, letters: str) -> str:
        """Find the least distance of sound (Metaphone, without vowels) and, counted twice, of spelling."""
        import jellyfish

        if not self._sounds:
            spellings = ((word, _letters(word)) for word in self._words)
            self._sounds = {word: (spelling, jellyfish.metaphone(spelling)) for word, spelling in spellings}
        sound, known = jellyfish.metaphone(letters), self._sounds

        def distance(word: str) -> float:
            return 2 * _distance(letters, known[word][0]) + _distance(sound, known[word][1])

        return min(known, key=distance)


def _pieces(line: str) -> list[str]:
    """Split lyrics into section marks and words."""
    pieces: list[str] = []
    for part in _MARK.split(line):
        pieces += [part] if _MARK.fullmatch(part) else _WORD.findall(_spaced(part))
    return pieces


def _distance(first: str, second: str) -> float:
    """Levenshtein distance as a share of the longer text, in [0, 1]."""
    import jellyfish

    longest = max(len(first), len(second))
    return float(jellyfish.levenshtein_distance(first, second)) / longest if longest else 0.0


def _spaced(line: str) -> str:
    """Put a blank in place of whatever is part of no word."""
    kept = {
        character: character if unicodedata.category(character)[0] in "LMN" or character in _APOSTROPHES else " "
        for character in set(line)
    }
    return "".join(kept[character] for character in line)


def _spelled(word: str) -> str:
    """Return a word as the vocabulary spells it."""
    return unicodedata.normalize("NFC", word.lower())


def _letters(word: str) -> str:
    """Return a word's Latin letters without accents."""
    return _NO_LATIN_LETTERS.sub("", unicodedata.normalize("NFKD", word.casefold()))


def _without_private_use(token: str) -> str:
    return "".join(character for character in token if unicodedata.category(character) != "Co")


def _cut(word: str) -> str:
    return word if len(word) <= _SHOWN_CHARS else f"{word[:_SHOWN_CHARS]}..."


def _shown(words: list[str]) -> str:
    more = f" and {len(words) - _REFUSED_WORDS} more" if len(words) > _REFUSED_WORDS else ""
    return ", ".join(_cut(word) for word in words[:_REFUSED_WORDS]) + more
