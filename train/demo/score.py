"""A song of the demo world as a score: what was asked for, what is sung, and its eight codes a frame."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from train.demo import layout

Codes = NDArray[np.int64]

_MARK = re.compile(r"\[(\w+)\]")
_WORD = re.compile(r"[a-z]+")


@dataclass(frozen=True)
class Tags:
    """What a song shall be like; None leaves it to the seed."""

    tempo: str | None = None
    """Of `layout.TEMPI`."""
    mood: str | None = None
    style: str | None = None
    chords: str | None = None
    """Of `layout.CHORD_INSTRUMENTS`."""
    lead: str | None = None
    """Of `layout.LEAD_INSTRUMENTS`."""
    gender: str | None = None
    colour: str | None = None

    @property
    def words(self) -> tuple[str, ...]:
        """The tags that are set, as a caller writes them: `female` is `female voice`."""
        voice = None if self.gender is None else f"{self.gender} voice"
        given = (self.chords, self.mood, self.tempo, self.style, self.lead, voice, self.colour)
        return tuple(tag for tag in given if tag is not None)

    @property
    def text(self) -> str:
        """The tags as `song` takes them: `piano,happy,slow,pop,flute,female voice,warm`."""
        return ",".join(self.words)

    @property
    def singer(self) -> int:
        """Index into `layout.SINGERS`; gender and colour must be set."""
        return layout.SINGERS.index(f"{self.gender} {self.colour}")


STYLES = ("pop", "ballad", "lullaby", "dance")
CHOICES: dict[str, tuple[str, ...]] = {
    "tempo": tuple(layout.TEMPI),
    "mood": ("happy", "sad"),
    "style": STYLES,
    "chords": layout.CHORD_INSTRUMENTS,
    "lead": layout.LEAD_INSTRUMENTS,
    "gender": ("female", "male"),
    "colour": ("warm", "bright"),
}
"""Tags of each kind."""


def read_tags(text: str) -> Tags:
    """Read tags as a caller writes them.

    Raises:
        ValueError: a tag is not known, or two of a kind are.
    """
    tags = Tags()
    for tag in (part.strip().lower() for part in text.split(",") if part.strip()):
        name = tag.removesuffix(" voice")
        kind = next((kind for kind, known in CHOICES.items() if name in known), None)
        if kind is None:
            raise ValueError(f"tags: {tag!r} is not known; known: {', '.join(sum(CHOICES.values(), ()))}")
        if getattr(tags, kind) not in (None, name):
            raise ValueError(f"tags: {tag!r} contradicts {getattr(tags, kind)!r}; keep one")
        tags = replace(tags, **{kind: name})
    return tags


def choose_tags(tags: Tags, rng: np.random.Generator) -> Tags:
    """Return the tags with every kind set; always draws the same number of random numbers."""
    drawn = {kind: str(rng.choice(known)) for kind, known in CHOICES.items()}
    return replace(tags, **{kind: tag for kind, tag in drawn.items() if getattr(tags, kind) is None})


@dataclass(frozen=True)
class SungLine:
    """One line of lyrics."""

    words: tuple[str, ...]
    is_chorus: bool


def read_lyrics(text: str) -> tuple[SungLine, ...]:
    """Read lyrics with or without section marks; lines without a mark before them are a verse."""
    lines, is_chorus = [], False
    for line in text.lower().split("\n"):
        if mark := _MARK.search(line):
            is_chorus = mark[1] == "chorus"
        elif found := _WORD.findall(line):
            lines.append(SungLine(tuple(found), is_chorus))
    return tuple(lines)


@dataclass(frozen=True)
class ScoreNote:
    """One sung note."""

    word: int
    """Index into the song's words."""
    syllable: int
    start: int
    """First frame."""
    end: int
    """Frame after the last."""
    pitch: int
    """Index into the singer's pitches."""


@dataclass(frozen=True)
class Score:
    """A song."""

    tags: Tags
    """Every kind is set."""
    lyrics: str
    """As they were given."""
    lines: tuple[SungLine, ...]
    key: str
    """Of `harmony.KEYS`."""
    chords: tuple[str, ...]
    """Of each bar."""
    notes: tuple[ScoreNote, ...]
    codes: Codes
    """Int64 [8, T]."""

    @property
    def words(self) -> tuple[str, ...]:
        """All words in order."""
        return tuple(word for line in self.lines for word in line.words)

    @property
    def seconds(self) -> float:
        """Duration."""
        return self.codes.shape[1] / layout.FRAME_HZ


def later_uses(song_words: Sequence[str]) -> list[int]:
    """Return for each word of a song how often it stands in the rest."""
    counts: dict[str, int] = {}
    made = []
    for word in reversed(song_words):
        made.append(counts.get(word, 0))
        counts[word] = made[-1] + 1
    return made[::-1]


def word_cursors(song_words: Sequence[str], ids: dict[str, int]) -> list[tuple[int, int]]:
    """Return what each word of a song writes: the cursor's id, and what is added to the clock's.

    Together they tell apart four occurrences of a word, as the prompt's tokens do (`train.demo.prompt`).
    """
    return [
        (layout.cursor_id(layout.Cursor(ids[word], uses % 2)), uses // 2 % 2 * layout.CLOCKS)
        for word, uses in zip(song_words, later_uses(song_words), strict=True)
    ]
