"""The words of the voice bank with their phonemes, from lines.json."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

FILE = Path(__file__).with_name("lines.json")
"""Lines of each song, words to phonemes; `phonemes` writes the latter."""


@dataclass(frozen=True)
class Line:
    """One line: English words, and the same in Kokoro's phoneme letters."""

    words: str
    phonemes: str


@lru_cache(maxsize=1)
def _all() -> dict[str, tuple[Line, ...]]:
    return {
        name: tuple(Line(words, phonemes) for words, phonemes in lines.items())
        for name, lines in json.loads(FILE.read_text()).items()
    }


def lines_of(name: str) -> tuple[Line, ...]:
    """Return the lines of a song or of a reference, in order."""
    return _all()[name]
