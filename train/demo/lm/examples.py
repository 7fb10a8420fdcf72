"""What the language model learns from: sequences of words alone, songs of random words, and the world's songs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from train.demo import layout, words
from train.demo.compose import compose
from train.demo.grammar import HELD_OUT_SEED
from train.demo.lm.batches import Example
from train.demo.score import CHOICES, Tags, word_cursors
from train.demo.songs import training_song

LINE_WORDS = (3, 8)
"""Fewest and most words of a line of random words."""
_FEW_TAGS = 0.3
"""Share of the prompts in which tags are left out, and in which their order is another one."""
_MARKS = 0.8
"""Share of the lyrics with section marks."""
_FIRST_MARKS = ("verse", "verse", "verse", "prechorus", "bridge")
_OTHERS = 0.15
"""Share of the lyrics with a mark of an empty section, and with words that are not in the vocabulary."""
_UNKNOWN = "xx"


def random_lines(rng: np.random.Generator, n_words: int, repeats: float) -> list[list[str]]:
    """Draw words in lines.

    Args:
        rng: source.
        n_words: of all lines.
        repeats: share of the words that may be one of those before.
    """
    vocabulary = list(words.phonemes())
    drawn = [vocabulary[index] for index in rng.permutation(len(vocabulary))[:n_words]]
    for place in np.flatnonzero(rng.random(n_words) < repeats):
        drawn[place] = drawn[rng.integers(n_words)]
    lines: list[list[str]] = []
    while drawn:
        length = int(rng.integers(LINE_WORDS[0], LINE_WORDS[1] + 1))
        lines.append(drawn[:length])
        drawn = drawn[length:]
    return lines


def lyrics_text(lines: Sequence[Sequence[str]], rng: np.random.Generator) -> str:
    """Write lines as canonical lyrics: mostly a verse and a chorus, with their marks and others."""
    texts = [" ".join(line) for line in lines]
    if rng.random() >= _MARKS:
        return "\n".join(texts)
    chorus = int(rng.integers(1, len(texts) + 1))
    sections = ["\n".join([f"[{rng.choice(_FIRST_MARKS)}]", *texts[:chorus]])]
    if chorus < len(texts):
        sections.append("\n".join(["[chorus]", *texts[chorus:]]))
    empty = [mark for mark in ("[intro]", "[outro]") if rng.random() < _OTHERS]
    return "\n\n".join(
        [*(mark for mark in empty if mark == "[intro]"), *sections, *(m for m in empty if m == "[outro]")]
    )


def with_unknown_words(lyrics: str, rng: np.random.Generator) -> str:
    """Put a few words between those of some lyrics that are not in the vocabulary: nobody sings them."""
    if rng.random() >= _OTHERS:
        return lyrics
    parts = lyrics.split(" ")
    for _ in range(int(rng.integers(1, 4))):
        parts.insert(int(rng.integers(1, len(parts) + 1)), _UNKNOWN)
    return " ".join(parts)


def asked_tags(tags: Tags, rng: np.random.Generator) -> str:
    """Write a song's tags as callers might: some of them, in any order."""
    asked = list(tags.words)
    if rng.random() < _FEW_TAGS:
        asked = [tag for tag in asked if rng.random() < 0.7]
    if rng.random() < _FEW_TAGS:
        rng.shuffle(asked)
    return ",".join(asked)


def words_alone(rng: np.random.Generator, n_words: int) -> Example:
    """Return a frame for each word, with plausible other codes: copying without the rest."""
    lines = random_lines(rng, n_words, repeats=0.3 if rng.random() < 0.3 else 0.0)
    cursors = np.array(word_cursors([word for line in lines for word in line], words.ids()))
    codes = np.stack([rng.integers(0, size, n_words) for size in layout.SIZES])
    codes[layout.CURSOR] = cursors[:, 0]
    codes[layout.CLOCK] = codes[layout.CLOCK] % layout.CLOCKS + cursors[:, 1]
    drawn = Tags(**{kind: str(rng.choice(known)) for kind, known in CHOICES.items()})
    return Example(asked_tags(drawn, rng), with_unknown_words(lyrics_text(lines, rng), rng), codes, keep=0.0)


def random_song(rng: np.random.Generator, tags: Tags, n_words: int, keep: float) -> Example:
    """Return a song whose words are no sentences, so that they must be read."""
    lines = random_lines(rng, n_words, repeats=0.15 if rng.random() < 0.5 else 0.0)
    score = compose(tags, lyrics_text(lines, rng), int(rng.integers(HELD_OUT_SEED)))
    return Example(asked_tags(score.tags, rng), with_unknown_words(score.lyrics, rng), score.codes, keep)


def world_song(rng: np.random.Generator, tags: Tags, keep: float) -> Example:
    """Return one of the songs for training."""
    score = training_song(int(rng.integers(HELD_OUT_SEED)), tags)
    return Example(asked_tags(score.tags, rng), score.lyrics, score.codes, keep)


def onsets(example: Example) -> Example:
    """Keep a song's frames in which the cursor moves: its words, with their real codes."""
    moved: NDArray[np.bool_] = np.diff(example.codes[layout.CURSOR], prepend=0) != 0
    return Example(example.tags, example.lyrics, example.codes[:, moved], keep=1.0)


def opening(example: Example, bars: int) -> Example:
    """Keep the first bars of a song, or its first frame alone (0): there the tags' instruments are chosen."""
    clock = layout.read_clock(int(example.codes[layout.CLOCK, 0]))
    n_frames = 1 if clock is None else max(1, bars * layout.BEATS * layout.TEMPI[clock.tempo])
    return Example(example.tags, example.lyrics, example.codes[:, :n_frames], example.keep, ends=False)
