"""The vocabulary of the demo world: English words with their phonemes, from words.json.

    python -m train.demo.words --write

writes the phonemes of the words of `grammar` beside them. Without --write it says whether the file is up to date.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import pairwise
from pathlib import Path

from train.demo import grammar

FILE = Path(__file__).with_name("words.json")
"""Words to Kokoro's phoneme letters, in the order of their ids."""
SPOKEN_OTHERWISE = {
    "a": "ˈʌ", "again": "əɡˈAn", "can": "kˈɛn", "into": "ˈɪntu", "of": "ˈʌv", "our": "ˈWɜɹ", "the": "ðˈʌ", "us": "ˈʌs",
    "was": "wˈɑz", "your": "jˈɔɹ",
}  # fmt: skip
"""Where eSpeak says a letter's name or uses a letter that Kokoro lacks, or where the word is better understood so."""
NUCLEI = frozenset("AIOQWYaeiouæɐɑɒɔəɛɜɪʊʌᵊᵻ")
"""Letters that are a syllable's vowel."""
DIPHTHONGS = frozenset("AIOQWY")
_STRESS = frozenset("ˈˌ")


@dataclass(frozen=True)
class Syllable:
    """Letters of one syllable: what is before the vowel, the vowel, and what is after it."""

    onset: str
    nucleus: str
    coda: str


@lru_cache(maxsize=1)
def phonemes() -> dict[str, str]:
    """Return the vocabulary: words to phonemes with stress marks; a word's id is its place."""
    words: dict[str, str] = json.loads(FILE.read_text())
    return words


@lru_cache(maxsize=1)
def ids() -> dict[str, int]:
    """Return the id of each word, from 0."""
    return {word: index for index, word in enumerate(phonemes())}


def sounds(word: str) -> str:
    """Return a word's phonemes without stress marks."""
    return "".join(letter for letter in phonemes()[word] if letter not in _STRESS)


def stressed(letters: str) -> str:
    """Stress the first vowel of a word without stress: small words are sung as clearly as others."""
    if "ˈ" in letters:
        return letters
    first = next(index for index, letter in enumerate(letters) if letter in NUCLEI)
    return (letters[:first] + "ˈ" + letters[first:]).replace("ˌ", "")


@cache
def syllables(word: str) -> tuple[Syllable, ...]:
    """Divide a word into syllables; between two vowels, all consonants but the first of several go to the second."""
    letters = sounds(word)
    places = [index for index, letter in enumerate(letters) if letter in NUCLEI]
    starts = [0]
    for one, other in pairwise(places):
        between = other - one - 1
        starts.append(other - between + (1 if between > 1 else 0))
    ends = [*starts[1:], len(letters)]
    return tuple(
        Syllable(letters[start:place], letters[place], letters[place + 1 : end])
        for start, place, end in zip(starts, places, ends, strict=True)
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Check or write the file, and return the exit status."""
    from train.voices.phonemes import phonemes_of

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write the file; otherwise only compare")
    options = parser.parse_args(arguments)
    words = sorted(grammar.words())
    said = {
        word: SPOKEN_OTHERWISE.get(word) or stressed(letters.rstrip("."))
        for word, letters in zip(words, phonemes_of(words), strict=True)
    }
    text = json.dumps(said, ensure_ascii=False, indent=1) + "\n"
    if options.write:
        FILE.write_text(text)
    return int(not FILE.is_file() or FILE.read_text() != text)


if __name__ == "__main__":
    sys.exit(main())
