"""Writes ID3v2.3 tags, because libsndfile hands LAME UTF-8 as if it were Latin-1.

Source: ID3 tag version 2.3.0 (id3.org), sections 3.1, 3.3, 4.2 and 4.11.
"""

from __future__ import annotations

from heartvoice.contracts.provenance import Tags

_LATIN_1, _UTF_16 = b"\x00", b"\x01"
_LANGUAGE = b"XXX"
"""Of a comment in no stated language."""


def id3_tag(tags: Tags) -> bytes:
    """Return a tag with title, artist and comment, to stand before the first MP3 frame; b"" if all are empty."""
    frames = b"".join(
        _frame(name, text) for name, text in (("TIT2", tags.title), ("TPE1", tags.artist), ("COMM", tags.comment))
    )
    if not frames:
        return b""
    return b"ID3\x03\x00\x00" + bytes(len(frames) >> shift & 0x7F for shift in (21, 14, 7, 0)) + frames


def _frame(name: str, text: str) -> bytes:
    if not text:
        return b""
    encoding, codec, end = (_LATIN_1, "ascii", b"\x00") if text.isascii() else (_UTF_16, "utf-16", b"\x00\x00")
    described = b"" if name != "COMM" else _LANGUAGE + "".encode(codec) + end
    body = encoding + described + text.encode(codec)
    return name.encode() + len(body).to_bytes(4, "big") + b"\x00\x00" + body
