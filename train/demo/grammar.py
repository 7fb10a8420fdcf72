"""Writes lyrics of the demo world: English lines of 5 to 8 words out of sentence patterns."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

LINE_WORDS = (5, 8)
"""Fewest and most words of a line."""
HELD_OUT_SEED = 1_000_000_007
"""Seeds from here on write lyrics for tests; smaller ones write lyrics for training."""

CLASSES: dict[str, str] = {
    "SUBJECT": "i you we they",
    "PERSON": "she he nobody everybody somebody",
    "WILL": "will can could should must might",
    "DETERMINER": "the my your our every this that his another",
    "PLACE": (
        "in on to under over through across beside behind around beyond near along with without from into toward"
    ),
    "TIME": "tonight today tomorrow again forever together alone slowly softly",
    "SHORT_TIME": "now always still never only",
    "ADJECTIVE": (
        "bright cold warm deep soft wild sweet lost gentle golden silver yellow purple broken hidden simple "
        "little happy lonely heavy hungry empty early ancient burning sleeping frozen crooked dusty lovely tender "
        "velvet crystal painted distant foreign narrow"
    ),
    "SPOT": (
        "river mountain window garden city island ocean kitchen table castle village valley desert forest "
        "meadow station market fire rainbow moon street bridge house hill tree door church school "
        "fountain beach corner balcony road water shadow sunlight moonlight starlight darkness thunder "
        "storm"
    ),
    "THING": (
        "summer winter morning evening mirror candle letter flower feather pillow paper picture pocket bottle "
        "star stone home dog car song drum bell voice story dream name world bread apple "
        "honey sugar guitar piano telephone silence distance secret promise memory moment season music "
        "melody rhythm question reason holiday journey ticket jacket blanket ladder engine hammer "
        "basket lantern diamond treasure"
    ),
    "BEING": (
        "mother father sister brother baby doctor teacher stranger lover dancer singer sailor soldier farmer "
        "children people angel captain rider neighbor hunter"
    ),
    "TAKE": (
        "follow carry remember forget find open keep bring build watch hear touch leave need want love call "
        "kiss discover borrow deliver gather imagine understand"
    ),
    "GO": ("dance walk run sleep sing fall wait stay fly swim climb hide travel whisper listen shine"),
    "GOING": (
        "dancing walking running dreaming singing falling waiting flying swimming hiding standing "
        "drifting smiling crying"
    ),
    "MOVING": "shining growing rising turning moving calling ringing changing breaking fading",
}
"""Words of each class; a word may belong to one class and stand in patterns, too."""

PATTERNS = (
    "SUBJECT WILL TAKE DETERMINER ADJECTIVE THING",
    "SUBJECT WILL TAKE DETERMINER ADJECTIVE THING TIME",
    "SUBJECT WILL TAKE DETERMINER THING PLACE DETERMINER SPOT",
    "SUBJECT WILL GO PLACE DETERMINER ADJECTIVE SPOT",
    "SUBJECT WILL GO PLACE DETERMINER SPOT TIME",
    "PERSON WILL TAKE DETERMINER ADJECTIVE THING",
    "PERSON WILL GO PLACE DETERMINER ADJECTIVE SPOT",
    "DETERMINER ADJECTIVE BEING WILL GO TIME",
    "DETERMINER BEING WILL TAKE DETERMINER ADJECTIVE THING",
    "DETERMINER ADJECTIVE BEING is GOING PLACE DETERMINER SPOT",
    "we are GOING PLACE DETERMINER ADJECTIVE SPOT",
    "they were GOING PLACE DETERMINER SPOT TIME",
    "i am GOING PLACE DETERMINER ADJECTIVE SPOT",
    "i was GOING PLACE DETERMINER SPOT TIME",
    "DETERMINER THING is MOVING PLACE DETERMINER ADJECTIVE SPOT",
    "there is a ADJECTIVE THING PLACE DETERMINER SPOT",
    "there was a ADJECTIVE BEING PLACE DETERMINER SPOT",
    "come with me PLACE DETERMINER ADJECTIVE SPOT",
    "take me home PLACE DETERMINER ADJECTIVE SPOT",
    "tell me about DETERMINER ADJECTIVE THING",
    "give me DETERMINER ADJECTIVE THING TIME",
    "where did DETERMINER ADJECTIVE THING go TIME",
    "when DETERMINER THING is MOVING SUBJECT WILL GO",
    "please TAKE DETERMINER ADJECTIVE THING before DETERMINER THING",
    "DETERMINER THING and DETERMINER THING are MOVING TIME",
    "SUBJECT have SHORT_TIME seen DETERMINER ADJECTIVE THING",
    "all of us WILL GO PLACE DETERMINER SPOT",
    "nothing WILL GO PLACE DETERMINER ADJECTIVE SPOT",
    "oh how SUBJECT love DETERMINER ADJECTIVE THING",
    "TIME SUBJECT WILL TAKE DETERMINER ADJECTIVE THING",
    "do you hear DETERMINER ADJECTIVE THING MOVING",
    "hold DETERMINER ADJECTIVE THING TIME",
    "let us GO PLACE DETERMINER ADJECTIVE SPOT",
    "so many people are GOING PLACE DETERMINER SPOT",
    "DETERMINER heart is like a ADJECTIVE THING",
    "it was DETERMINER ADJECTIVE THING of DETERMINER BEING",
)
"""Sentences: words, and classes in capitals."""


def words() -> frozenset[str]:
    """Return every word that a line may have."""
    in_patterns = {word for pattern in PATTERNS for word in pattern.split() if word not in CLASSES}
    return frozenset(in_patterns.union(*(members.split() for members in CLASSES.values())))


_MAX_TRIES = 1000
"""For one line; then the lyrics are begun anew."""


@dataclass(frozen=True)
class Lyrics:
    """Lines of lyrics, the later ones a chorus."""

    lines: tuple[str, ...]
    chorus_from: int
    """Index of the first line of the chorus; the number of lines if there is none."""

    @property
    def text(self) -> str:
        """The lyrics with section marks, as `song` takes them."""
        verse, chorus = self.lines[: self.chorus_from], self.lines[self.chorus_from :]
        parts = ["\n".join(("[verse]", *verse))] if verse else []
        return "\n\n".join([*parts, *(["\n".join(("[chorus]", *chorus))] if chorus else [])])


def write_line(rng: np.random.Generator, used: Collection[str] = ()) -> str | None:
    """Write one line out of a pattern; no word stands twice in it.

    Args:
        rng: source of its choices.
        used: words that it must not have.

    Returns:
        5 to 8 words; None if this pattern has too few words left.
    """
    chosen: list[str] = []
    for part in PATTERNS[rng.integers(len(PATTERNS))].split():
        choices = [word for word in CLASSES.get(part, part).split() if word not in used and word not in chosen]
        if part in CLASSES and chosen and chosen[-1] == "a":
            choices = [word for word in choices if word[0] not in "aeiou"]
        if not choices:
            return None
        chosen.append(str(rng.choice(choices)))
    return " ".join(chosen) if LINE_WORDS[0] <= len(chosen) <= LINE_WORDS[1] else None


def is_held_out(line: str) -> bool:
    """Return True for one line in eight, by its hash: training never sees them, tests have no others."""
    return sha256(line.encode()).digest()[0] < 32


def write_lyrics(
    seed: int, n_lines: int = 4, *, repeats: bool = True, keep: Callable[[str], bool] | None = None
) -> Lyrics:
    """Write lyrics; equal arguments give equal lyrics.

    Args:
        seed: any integer from 0.
        n_lines: at least 1.
        repeats: False leaves out lines with words of earlier lines; True makes sure that one word stands in two lines,
            if there are two lines.
        keep: says which lines are wanted; default is those of training.

    Returns:
        A verse, and from two lines on a chorus of half of them.
    """
    rng = np.random.default_rng(seed)
    keep = keep or (lambda line: not is_held_out(line))
    lines: list[str] = []
    tries = 0
    while len(lines) < n_lines:
        tries += 1
        if tries > _MAX_TRIES:  # the lines so far have used the words that every pattern needs
            lines.clear()
            tries = 0
        line = write_line(rng, () if repeats else " ".join(lines).split())
        if line is None or not keep(line):
            continue
        lines.append(line)
        tries = 0
        sung = " ".join(lines).split()
        if repeats and 1 < len(lines) == n_lines and len(set(sung)) == len(sung):
            lines.clear()
    return Lyrics(tuple(lines), n_lines - n_lines // 2)


def training_lyrics(seed: int) -> Lyrics:
    """Write lyrics of 1 to 6 lines for training; half of the seeds allow repeated words."""
    rng = np.random.default_rng([seed, 1])
    return write_lyrics(seed, int(rng.integers(1, 5 + 2)), repeats=bool(rng.random() < 0.5))


def held_out_lyrics(index: int) -> Lyrics:
    """Write lyrics for tests: four lines that training never has; a word is repeated in one of four lyrics."""
    return write_lyrics(HELD_OUT_SEED + index, repeats=index % 4 == 3, keep=is_held_out)
