"""Which containers take a manifest, by their first bytes and by C2PA's names of them."""

from __future__ import annotations

from typing import IO

MEDIA_TYPES = {"wav": "audio/wav", "flac": "audio/flac", "mp3": "audio/mpeg", "ogg": "audio/ogg", "m4a": "audio/mp4"}
SIDECAR_ONLY = frozenset({"ogg"})
"""Formats without a place for a manifest."""
_FLAC, _ID3 = b"fLaC", b"ID3"
_ID3_HEADER_BYTES = 10
_HEAD_BYTES = 16


def container_of(file: IO[bytes]) -> str | None:
    """Return the format of an encoded file, a key of `MEDIA_TYPES`; None if it is none of them. Rewinds it."""
    file.seek(0)
    head = file.read(_HEAD_BYTES)
    is_flac = head.startswith(_FLAC)
    if head.startswith(_ID3):  # in front of a signed FLAC, too
        file.seek(_id3_bytes(head))
        is_flac = file.read(len(_FLAC)) == _FLAC
    file.seek(0)
    found = {
        "wav": head[:4] == b"RIFF" and head[8:12] == b"WAVE",
        "m4a": head[4:8] == b"ftyp",
        "ogg": head.startswith(b"OggS"),
        "flac": is_flac,
        "mp3": head.startswith(_ID3) or (len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0),
    }
    return next((name for name, is_it in found.items() if is_it), None)


def _id3_bytes(head: bytes) -> int:
    """Length of an ID3v2 tag: its size is four times 7 bits."""
    size = 0
    for byte in head[6:_ID3_HEADER_BYTES]:
        size = size << 7 | byte & 0x7F
    return _ID3_HEADER_BYTES + size
