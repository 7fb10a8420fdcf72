"""The one form of a text: the same words make the same song, however they were typed or stored.

Client, gateway and server read texts by these functions alone. Each of them changes nothing that it has already
changed, so that a text may pass several of them.
"""

from __future__ import annotations

import re
import unicodedata

BYTE_ORDER_MARK = "\ufeff"
TAG_START, TAG_END = "<tag>", "</tag>"
"""The marks around a prompt's tags, which callers may write themselves (heartmula spec, section 8)."""
SECTION_MARKS = ("intro", "verse", "prechorus", "chorus", "bridge", "outro")
"""The section marks that the publisher of the official weights recommends (heartlib's README, February 2026)."""

_LINE_BREAK = re.compile("\r*\n|\r|\u2028|\u2029")
"""Also `\\r\\r\\n`, which a program writes that adds carriage returns twice."""
_BLANKS = re.compile(r"[^\S\n]+")
_SECTION_BREAK = re.compile(r"\n{3,}")
_COMMA = re.compile("[,\uff0c\u3001\u060c\n]")
"""Commas of Latin, Chinese, Japanese and Arabic texts; a tag may also have a line of its own."""


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
    """Compose letters, unify line breaks and drop byte order marks: also those of files that were joined."""
    return unicodedata.normalize("NFC", _LINE_BREAK.sub("\n", text.replace(BYTE_ORDER_MARK, "")))
