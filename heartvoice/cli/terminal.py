"""Escapes untrusted text for a terminal: file names, server's messages, reports."""

from __future__ import annotations

import unicodedata

from heartvoice.contracts.constants import BIDI_CONTROLS

_UNSHOWN = ("Cc", "Cs", "Co", "Cn", "Zl", "Zp")


def escape_controls(text: str) -> str:
    r"""Return `text` with all terminal control characters escaped.

    Escape sequences move cursors, set titles and colours, and on some terminals type; they must not come from a file's
    name or a server's message. Control characters, lone surrogates (bytes of a name that are no UTF-8), unassigned
    characters and those that turn the direction of writing become `\x1b` or `\u202e`.
    """
    return "".join(_escaped(character) for character in text)


def _escaped(character: str) -> str:
    if character in BIDI_CONTROLS or unicodedata.category(character) in _UNSHOWN:
        return character.encode("unicode_escape").decode()
    return character
