"""Takes OGG files apart: joined streams, and streams beside one another (RFC 3533).

libsndfile reads the first stream of a file that was joined of several, and stops without an error.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import accumulate

from heartvoice.audio.sound_part import SoundPart, SoundParts, UnreadableError, after_end_tags, check_joined, is_padding

_FIRST, _LAST = 2, 4
"""Flags of a page: begin and end of its stream."""
_CODECS = (
    (b"\x01vorbis", "Vorbis"), (b"OpusHead", "Opus"), (b"\x7fFLAC", "FLAC"), (b"Speex   ", "Speex"),
    (b"\x80theora", "Theora"), (b"fishead\0", "Skeleton"), (b"PCM     ", "PCM"), (b"\x80kate\0", "Kate"),
)  # fmt: skip
"""How a stream's first packet begins."""
_SOUND = ("Vorbis", "Opus")
_MOST_PAGES = 100_000
"""Limit of pages: ten minutes have 30,000 if each packet of 20 ms has its own."""


def _remainder(byte: int) -> int:
    value = byte << 24
    for _ in range(8):
        value = (value << 1 ^ 0x04C11DB7 * (value >> 31)) & 0xFFFFFFFF
    return value


_CRC = tuple(_remainder(byte) for byte in range(256))


@dataclass
class _Link:
    """Streams that run at the same time, and the pages [start, end) of the one that is sound."""

    codecs: dict[int, str] = field(default_factory=dict)
    """By serial number."""
    serial: int | None = None
    """The stream that is read: the first of a codec that libsndfile has."""
    pieces: list[list[int]] = field(default_factory=list)
    rest: bytes = b""
    """What the file holds of a page that it cuts, as a page of its own."""
    ended: bool = False
    """The stream's last page is there."""
    bodies: bool = False
    """Pages other than first ones have come."""

    def add(self, page: _Page, data: bytes) -> None:
        """Append a page if it is of the stream that is read; of one that the file cuts, its whole packets."""
        if page.serial != self.serial:
            return
        whole = page.end <= len(data)
        self.ended = bool(page.flags & _LAST) and whole
        if not whole:
            self.rest = page.cut(data)
            return
        if self.pieces and self.pieces[-1][1] == page.start:
            self.pieces[-1][1] = page.end
        else:
            self.pieces.append([page.start, page.end])


def ogg_parts(data: bytes, at: int = 0) -> SoundParts:
    """Find the streams of the OGG file at offset `at`, one behind the other.

    Raises:
        UnreadableError: one of them is no Vorbis or Opus, or there are none.
    """
    links, warnings = _links(data, at)
    if not links:
        raise UnreadableError("a file that is damaged or cut short (OGG without a first page)", convertible=False)
    for link in links:
        if link.serial is None:
            raise UnreadableError(f"OGG with {' and '.join(link.codecs.values())}")
    if not links[-1].ended:
        warnings.append("no end: the OGG stream lacks its last page, it may be cut short")
    parts = tuple(SoundPart(_stream(data, link), cut=bool(link.rest)) for link in links)
    return SoundParts("OGG", parts, tuple(dict.fromkeys(warnings)))


def _stream(data: bytes, link: _Link) -> bytes | memoryview:
    if len(link.pieces) == 1 and not link.rest:
        start, end = link.pieces[0]
        return memoryview(data)[start:end]
    return b"".join((*(data[start:end] for start, end in link.pieces), link.rest))


def _links(data: bytes, at: int) -> tuple[list[_Link], list[str]]:
    """Walk the pages, and sort them into links; the warnings say what was skipped."""
    links, warnings = list[_Link](), list[str]()
    for _ in range(_MOST_PAGES):
        if at >= len(data):
            return links, warnings
        page = _Page.read(data, at)
        if page is None:
            behind = after_end_tags(data, at)
            if is_padding(data, behind) or (data.startswith(b"OggS", at) and data.find(b"OggS", at + 1) < 0):
                return links, warnings
            at = behind if data.startswith(b"OggS", behind) and behind > at else data.find(b"OggS", max(behind, at + 1))
            if at < 0:
                return links, warnings
            if at > behind:
                warnings.append("damaged: parts of the OGG stream were skipped")
            continue
        if page.flags & _FIRST:
            _begin_stream(links, data, page)
        elif links:
            links[-1].bodies = True
        if links:
            links[-1].add(page, data)
        at = page.end
    raise UnreadableError(f"OGG of more than {_MOST_PAGES} pages")


@dataclass(frozen=True)
class _Page:
    """The header of a page, and where the page lies."""

    start: int
    body: int
    end: int
    flags: int
    serial: int

    @classmethod
    def read(cls, data: bytes, at: int) -> _Page | None:
        """Return the page that begins at `at`; None if there is none."""
        header = data[at : at + 27]  # magic, version, flags, position, serial, number, checksum, segments
        if header[:4] != b"OggS" or len(header) < 27:
            return None
        sizes = data[at + 27 : at + 27 + header[26]]
        if len(sizes) < header[26]:
            return None
        body = at + 27 + header[26]
        return cls(at, body, body + sum(sizes), header[5], int.from_bytes(header[14:18], "little"))

    def cut(self, data: bytes) -> bytes:
        """Return a page of the packets that end within the data, without the flag of a last page; b"" if none does."""
        sizes = data[self.start + 27 : self.body]
        ends = [self.body + end for end in accumulate(sizes)]
        whole = [n for n, (size, end) in enumerate(zip(sizes, ends, strict=True), 1) if size < 255 and end <= len(data)]
        if not whole:
            return b""
        n = whole[-1]
        header = bytearray(data[self.start : self.start + 27])
        header[5] &= ~_LAST
        header[22:26], header[26] = bytes(4), n
        page = bytearray(header + sizes[:n] + data[self.body : ends[n - 1]])
        page[22:26] = _checksum(page).to_bytes(4, "little")
        return bytes(page)


def _checksum(page: bytes | bytearray) -> int:
    """Return a page's checksum (RFC 3533, section 6: polynomial 04c11db7, not reflected, from 0)."""
    value = 0
    for byte in page:
        value = (value << 8 & 0xFFFFFFFF) ^ _CRC[value >> 24 ^ byte]
    return value


def _begin_stream(links: list[_Link], data: bytes, page: _Page) -> None:
    """Note the stream that begins with this page, in the current link or in a new one."""
    if not links or links[-1].bodies:
        links.append(_Link())
        check_joined("OGG", len(links))
    codec = next((name for magic, name in _CODECS if data.startswith(magic, page.body)), "an unknown codec")
    links[-1].codecs[page.serial] = codec
    if links[-1].serial is None and codec in _SOUND:
        links[-1].serial = page.serial
