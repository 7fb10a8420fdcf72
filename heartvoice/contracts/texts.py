"""The one form of a text: the same words make the same song, however they were typed or stored.

Client, gateway and server read texts by these functions alone. Each of them changes nothing that it has already
changed, so that a text may pass several of them.
"""

from __future__ import annotations

import difflib
import re
import unicodedata

BYTE_ORDER_MARK = "\ufeff"
TAG_START, TAG_END = "<tag>", "</tag>"
"""The marks around a prompt's tags, which callers may write themselves (heartmula spec, section 8)."""
SECTION_MARKS = ("intro", "verse", "prechorus", "chorus", "bridge", "outro")
"""The section marks that the publisher of the official weights recommends (heartlib's README, February 2026)."""

_LINE_BREAK = re.compile("\r*\n|\r|\u2028|\u2029")
"""Also `\\r\\r\\n`, which a program writes that adds carriage returns twice."""
_INVISIBLE = re.compile("[\u00ad\u200b\u200e\u200f\u2060\ufeff]")
"""Soft hyphens, marks of width zero and of direction, as web pages and word processors leave them; also byte order
marks of files that were joined. Joiners (U+200C, U+200D) are letters' own."""
_BLANKS = re.compile(r"[^\S\n]+")
_SECTION_BREAK = re.compile(r"\n{3,}")
_COMMA = re.compile("[,\uff0c\u3001\u060c\n]")
"""Commas of Latin, Chinese, Japanese and Arabic texts; a tag may also have a line of its own."""
_BRACKETS = re.compile(r"[\[\u3010\uff3b][^\[\]\u3010\u3011\n]+[\]\u3011\uff3d]")
"""A mark in brackets, also in those of Chinese and Japanese texts."""
_NO_LETTERS = re.compile("[^a-z]")
_SHOWN_MARKS, _SHOWN_CHARS = 4, 40


def canonical_lyrics(text: str) -> str:
    """Return lyrics as the model reads them, but for capitals.

    Lines end with a line feed and have no blanks around them; words are apart by one space, sections by one empty line.
    Nothing stands before the first word and after the last one. Letters are composed (Unicode's NFC).
    """
    lines = (_BLANKS.sub(" ", line).strip() for line in _composed(text).split("\n"))
    return _SECTION_BREAK.sub("\n\n", "\n".join(lines)).strip("\n")


def canonical_tags(text: str) -> str:
    """Return tags as the official weights were trained with them, but for capitals: `pop,piano`, without blanks.

    Tags without a word are left out. `<tag>` at the beginning and `</tag>` at the end stay, in lower case.
    """
    text = _composed(text).strip()
    start = TAG_START if text[: len(TAG_START)].lower() == TAG_START else ""
    end = TAG_END if text[-len(TAG_END) :].lower() == TAG_END else ""
    inner = text[len(start) : len(text) - len(end)]
    tags = (_BLANKS.sub(" ", tag).strip() for tag in _COMMA.split(inner))
    joined = ",".join(tag for tag in tags if tag)
    return f"{start}{joined}{end}" if joined else ""


def canonical_line(text: str) -> str:
    """Return a text of one line without blanks around it, its letters composed, its words apart by one space."""
    return _BLANKS.sub(" ", _composed(text)).strip()


def _composed(text: str) -> str:
    """Compose letters, unify line breaks and drop what nobody sees."""
    return unicodedata.normalize("NFC", _LINE_BREAK.sub("\n", _INVISIBLE.sub("", text)))


def lyrics_warnings(lyrics: str) -> tuple[str, ...]:
    """Say which section marks of canonical lyrics the official weights were not made for.

    A mark is a text in brackets, or a line that is only a section's name in another notation, such as `Chorus:`.
    """
    known = [f"[{mark}]" for mark in SECTION_MARKS]
    unknown: dict[str, str | None] = {}  # with the mark that was probably meant
    for line in lyrics.split("\n"):
        unknown |= {mark: _nearest_mark(mark) for mark in _marks(line) if mark.lower() not in known}
    if not unknown:
        return ()
    shown = [
        f"{text[:_SHOWN_CHARS]}, probably [{meant}]" if meant else text[:_SHOWN_CHARS]
        for text, meant in unknown.items()
    ]
    more = f" and {len(shown) - _SHOWN_MARKS} more" if len(shown) > _SHOWN_MARKS else ""
    return (
        f"lyrics: not among the section marks that the model's publisher recommends: {'; '.join(shown[:_SHOWN_MARKS])}"
        f"{more}. HeartMuLa reads them as words. Recommended, each in a line of its own: {', '.join(known)}",
    )


def with_known_marks(lyrics: str) -> str:
    """Return canonical lyrics whose marks are recommended ones: those that were probably meant; others are left out."""
    known: dict[str, str] = {}

    def mark_of(text: str) -> str:
        if text not in known:
            meant = _nearest_mark(text)
            known[text] = f"[{meant}]" if meant else " "
        return known[text]

    lines = [
        mark_of(line) if _marks(line) == [line] else _BRACKETS.sub(lambda found: mark_of(found[0]), line)
        for line in lyrics.split("\n")
    ]
    return canonical_lyrics("\n".join(lines))


def without_section_marks(lyrics: str) -> str:
    """Return the sung text of canonical lyrics: their lines without the marks that `lyrics_warnings` looks at."""
    lines = []
    for line in lyrics.split("\n"):
        for mark in _marks(line):
            line = line.replace(mark, " ")
        lines.append(line)
    return canonical_lyrics("\n".join(lines))


def _marks(line: str) -> list[str]:
    """Return a line's texts in brackets, or the line if it is only a section's name."""
    return _BRACKETS.findall(line) or ([line] if _NO_LETTERS.sub("", line.lower()) in SECTION_MARKS else [])


def _nearest_mark(text: str) -> str | None:
    """Return the known mark that a caller probably meant, such as `verse` for `Verse 2`."""
    near = difflib.get_close_matches(_NO_LETTERS.sub("", text.lower()), SECTION_MARKS, 1)
    return near[0] if near else None
