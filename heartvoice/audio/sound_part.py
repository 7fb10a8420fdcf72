"""What the readers of containers hand to the decoder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

MAX_HEADER_STEPS = 1000
"""Limit of chunks or tags; real files have a handful, and thousands of empty ones take many seconds."""


_NOT_ZERO = re.compile(rb"[^\0]")


class UnreadableError(Exception):
    """A file that is not read; the text says what it is.

    `convertible` is True if another program may read it.
    """

    def __init__(self, what: str, *, convertible: bool = True) -> None:
        super().__init__(what)
        self.convertible = convertible


@dataclass(frozen=True, eq=False)
class SoundPart:
    """A piece of a file that libsndfile reads by itself; a file that was joined of several has one of each.

    Attributes:
        data: the bytes that libsndfile gets.
        frames: samples per channel that it holds by our own count; None if only decoding tells.
        head: bytes that take the place of those that `data` begins with.
        raw: arguments that describe bare samples; none if `data` has a header.
        lead: what libsndfile reads beyond `frames` is silence at the beginning, which is to be dropped.
        cut: the file ends before the samples that this part's headers promise.
    """

    data: bytes | memoryview
    frames: int | None = None
    head: bytes = b""
    raw: Mapping[str, str | int] = field(default_factory=dict)
    lead: bool = False
    cut: bool = False


@dataclass(frozen=True, eq=False)
class SoundParts:
    """All parts of a file, the container's name, its channel mask if any, and `warnings` of tolerable faults."""

    container: str
    parts: tuple[SoundPart, ...]
    warnings: tuple[str, ...] = ()
    mask: int = 0


def after_id3v2(data: bytes, at: int) -> int:
    """Return the offset behind the ID3v2 tags that begin at `at`; `at` if there are none."""
    for _ in range(MAX_HEADER_STEPS):
        header = data[at : at + 10]
        if len(header) < 10 or header[:3] != b"ID3" or max(header[3:5]) == 0xFF or max(header[6:10]) > 0x7F:
            return at
        size = sum(byte << shift for byte, shift in zip(header[6:10], (21, 14, 7, 0), strict=True))
        at += 10 + size + (10 if header[5] & 0x10 else 0)  # with its footer
    raise UnreadableError(f"a file with more than {MAX_HEADER_STEPS} ID3 tags", convertible=False)


def after_end_tags(data: bytes, at: int) -> int:
    """Return the offset behind tags that programs append to files: ID3v1, Lyrics3, APE and ID3v2."""
    for _ in range(MAX_HEADER_STEPS):
        start = at
        at = min(after_id3v2(data, at), len(data))
        if data.startswith(b"TAG+", at):
            at = min(at + 227, len(data))
        elif data.startswith(b"TAG", at):
            at = min(at + 128, len(data))
        elif data.startswith(b"APETAGEX", at):
            flags = int.from_bytes(data[at + 20 : at + 24], "little")
            # The size counts the footer and not the header, which is what begins the tag.
            at = min(at + 32 + (int.from_bytes(data[at + 12 : at + 16], "little") if flags >> 29 & 1 else 0), len(data))
        elif data.startswith(b"LYRICSBEGIN", at):
            end = max(data.find(mark, at, at + 200_000) for mark in (b"LYRICSEND", b"LYRICS200"))
            at = end + 9 if end > 0 else at
        if at == start:
            return at
    raise UnreadableError(f"a file with more than {MAX_HEADER_STEPS} tags", convertible=False)


def seconds(n_samples: int, rate_hz: int) -> str:
    """Return a duration for messages."""
    return f"{n_samples / max(rate_hz, 1):.6g} s"  # rates are checked later


def cut_short(promised: int, present: int, rate_hz: int) -> str:
    """Return the warning about a file with fewer samples than its header says."""
    lost = f"{promised - present} samples ({seconds(promised - present, rate_hz)})"
    return f"cut short: {lost} of the {seconds(promised, rate_hz)} that its header promises are not in the file"


def longer(promised: int, present: int, rate_hz: int) -> str:
    """Return the warning about a file with more samples than its header says."""
    said, held = seconds(promised, rate_hz), seconds(present, rate_hz)
    return f"length: the header says {said}, the file holds {held}, and all of it is read"


def is_padding(data: bytes, at: int) -> bool:
    """Return True if nothing but zeros follows."""
    return _NOT_ZERO.search(data, at) is None


def check_joined(container: str, n_parts: int) -> None:
    """Refuse a file of very many parts: each costs a decoder.

    Raises:
        UnreadableError: more than `MAX_HEADER_STEPS`.
    """
    if n_parts > MAX_HEADER_STEPS:
        raise UnreadableError(f"{container} joined of more than {MAX_HEADER_STEPS} files", convertible=False)
