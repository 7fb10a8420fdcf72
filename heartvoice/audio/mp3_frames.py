"""Counts the frames of an MP3 stream, and makes streams of it that libsndfile reads to their end.

libsndfile stops at the number of samples that the Xing header states, or at a guess from the first bit rate if there is
none. So frames are counted here, by their headers (ISO/IEC 11172-3, section 2.4.1.3), and a wrong Xing header is
corrected. Files that were joined end to end are taken apart, since each has its own header, delay and padding.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from heartvoice.audio.sound_part import (
    SoundPart,
    SoundParts,
    UnreadableError,
    after_end_tags,
    check_joined,
    cut_short,
    is_padding,
)

_HEADER = re.compile(rb"\xff(?=[\xe2\xe3\xf2\xf3\xfa\xfb][\x10-\xef])")
"""The first byte of a frame header of layer III with a bit rate; free format has none."""
_KBITS = (
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),  # MPEG 1
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),  # MPEG 2 and 2.5
)
_RATES_HZ = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
"""By the header's version bits: MPEG 1, 2 and 2.5."""
_MOST_TRIALS = 20_000
"""Limit of positions that are tried where no frame follows; garbage that looks like headers takes long."""
_ABSURD_S = 86_400
_CUT_FRAME = "cut short: the file ends within an MP3 frame"
_SURE_FRAMES = 3
"""Frames in a row by which a stream is recognised."""
_MOST_BEFORE = 65_536
"""Limit of bytes before the first frame that are no zeros."""


@dataclass(frozen=True)
class _Format:
    """What cannot change within a stream."""

    version: int
    sample_rate_hz: int
    channels: int

    @property
    def samples(self) -> int:
        """Samples per channel of a frame."""
        return 1152 if self.version == 3 else 576

    @property
    def side_bytes(self) -> int:
        """Bytes of side information."""
        if self.version == 3:
            return 17 if self.channels == 1 else 32
        return 9 if self.channels == 1 else 17


@dataclass
class _Segment:
    """Frames of one encoder run: offsets of pieces [start, end) without gaps, and the header frame if it has one."""

    format: _Format
    pieces: list[list[int]] = field(default_factory=list)
    frames: int = 0
    info_at: int = 0
    info: bytes = b""
    count_at: int = 0
    """Offset of the number of frames in `info`; 0 if it states none."""
    trimmed: int = 0
    """Samples of encoder delay and padding, which the decoder leaves out."""

    @property
    def declared(self) -> int | None:
        """The number of frames that the header frame states."""
        return int.from_bytes(self.info[self.count_at : self.count_at + 4], "big") if self.count_at else None

    def add(self, at: int, end: int) -> None:
        """Append the frame at [at, end)."""
        self.frames += 1
        if self.pieces and self.pieces[-1][1] == at:
            self.pieces[-1][1] = end
        else:
            self.pieces.append([at, end])


_parsed: dict[bytes, tuple[_Format, int]] = {}
"""Header bytes without mode extension, as `_parse` reads them; at most a few thousand exist."""


def _frame(header: bytes) -> tuple[_Format, int] | None:
    """Return format and length in bytes of the frame with this header of four bytes; None if it is none."""
    if len(header) < 4 or not _HEADER.match(header) or header[2] & 0x0C == 0x0C or header[3] & 3 == 2:
        return None
    return _parse(header)


def _parse(header: bytes) -> tuple[_Format, int]:
    """Return format and length in bytes of the frame with this valid header."""
    key = header[1:3] + bytes([header[3] & 0xC0])
    if key not in _parsed:
        version = header[1] >> 3 & 3
        rate_hz = _RATES_HZ[version][header[2] >> 2 & 3]
        kbits = _KBITS[version != 3][header[2] >> 4]
        length = (144 if version == 3 else 72) * kbits * 1000 // rate_hz + (header[2] >> 1 & 1)
        _parsed[key] = (_Format(version, rate_hz, 1 if header[3] >> 6 == 3 else 2), length)
    return _parsed[key]


def mp3_parts(data: bytes, start: int) -> SoundParts:
    """Find all frames behind offset `start`, and sort them into streams.

    Raises:
        UnreadableError: there are no frames, or pieces of different rates or channels.
    """
    walk = _Walk(data, start)
    walk.run()
    segments = [segment for segment in walk.segments if segment.frames]
    if not segments:
        raise UnreadableError("a file that is damaged or cut short (no MP3 frames)", convertible=False)
    missing = [warning for segment in segments if (warning := _missing(segment))]
    warnings = dict.fromkeys(missing + [each for each in walk.warnings if not (missing and each == _CUT_FRAME)])
    return SoundParts("MP3", tuple(_part(data, segment) for segment in segments), tuple(warnings))


def _missing(segment: _Segment) -> str:
    """Return the warning about frames that the header promises and that are not there; "" if there are all."""
    declared, samples, rate_hz = segment.declared or 0, segment.format.samples, segment.format.sample_rate_hz
    # Some encoders count the header frame too; absurd numbers were written before the length was known.
    if segment.frames + 1 < declared < _ABSURD_S * rate_hz / samples:
        return cut_short(declared * samples, segment.frames * samples, rate_hz)
    return ""


def _part(data: bytes, segment: _Segment) -> SoundPart:
    """Make the stream that libsndfile gets: a header frame with the number of frames, and the frames."""
    samples, pieces = segment.format.samples, segment.pieces
    if not segment.count_at:
        start = pieces[0][0]
        stream = [*_made_header(data[start : start + 4], segment), *(data[start:end] for start, end in pieces)]
        return SoundPart(b"".join(stream), segment.frames * samples, lead=True)
    frames = max(segment.frames * samples - segment.trimmed, 0)
    info, at = segment.info, segment.count_at
    correct = info[:at] + segment.frames.to_bytes(4, "big") + info[at + 4 :]
    if correct == info and len(pieces) == 1 and pieces[0][0] == segment.info_at + len(info):
        return SoundPart(memoryview(data)[segment.info_at : pieces[0][1]], frames)
    return SoundPart(b"".join([correct, *(data[start:end] for start, end in pieces)]), frames)


def _made_header(header: bytes, segment: _Segment) -> tuple[bytes, bytes]:
    """Make a header frame that states the number of frames, and a frame of silence.

    With a header frame mpg123 drops the first 529 samples, the decoder's delay. The silence is there for that.
    """
    needed = 4 + segment.format.side_bytes + 12
    for index in range(1, 15):
        plain = bytes([0xFF, header[1] | 1, index << 4 | header[2] & 0x0C, header[3]])  # no checksum, no padding
        length = _parse(plain)[1]
        if length >= needed:
            tag = b"Info" + (1).to_bytes(4, "big") + (segment.frames + 1).to_bytes(4, "big")
            info = (plain + bytes(segment.format.side_bytes) + tag).ljust(length, b"\0")
            return info, plain.ljust(length, b"\0")
    raise AssertionError("every format has frames of 100 bytes")  # our mistake


class _Walk:
    """One pass over a file's frames."""

    def __init__(self, data: bytes, start: int) -> None:
        self.data, self._at = data, start
        self.segments: list[_Segment] = []
        self.warnings: list[str] = []
        self._trials = 0

    def run(self) -> None:
        """Sort all frames into `segments`."""
        if not self._seek_frame(first=True):
            return
        self._begin()
        while True:
            found = _frame(self.data[self._at : self._at + 4])
            if found is None or self._at + found[1] > len(self.data):
                if not self._pass_gap():
                    return
                continue
            form, length = found
            segment = self.segments[-1]
            end = self._at + length
            if form != segment.format and not self._change(form, end):
                if not self._pass_gap():
                    return
                continue
            if self._is_info(form, length) or self._complete():
                self._begin()
            else:
                self.segments[-1].add(self._at, end)
                self._at = end

    def _change(self, form: _Format, end: int) -> bool:
        """A frame of another format is another file's beginning if the next one agrees with it."""
        following = _frame(self.data[end : end + 4])
        if following is None or following[0] != form:
            return False
        self._begin()
        return True

    def _begin(self) -> None:
        """Begin a segment at this frame; a header frame is kept apart from the sound."""
        form, length = _parse(self.data[self._at : self._at + 4])
        segment = _Segment(form)
        self.segments.append(segment)
        check_joined("MP3", len(self.segments))
        tag_at = self._is_info(form, length)
        if tag_at:
            frame = self.data[self._at : self._at + length]
            self._at += length
            if frame[tag_at : tag_at + 4] != b"VBRI" and frame[tag_at + 7] & 1:
                segment.info_at, segment.info, segment.count_at = self._at - length, frame, tag_at + 8
                segment.trimmed = _trimmed(frame, tag_at)

    def _is_info(self, form: _Format, length: int) -> int:
        """Return where the header tag begins within this frame; 0 if it is sound."""
        frame = self.data[self._at : self._at + min(length, 64)]
        for tag_at in (4 + form.side_bytes, 6 + form.side_bytes):
            if frame[tag_at : tag_at + 4] in (b"Xing", b"Info") and length >= tag_at + 12:
                return tag_at
        return 36 if frame[36:40] == b"VBRI" else 0

    def _complete(self) -> bool:
        """Return True if the segment has all its frames, and this one begins without bits of one before."""
        segment = self.segments[-1]
        if segment.declared != segment.frames or not segment.frames:
            return False
        at = self._at + (4 if self.data[self._at + 1] & 1 else 6)  # behind the header and its checksum
        needed = int.from_bytes(self.data[at : at + 2], "big") >> (7 if segment.format.version == 3 else 8)
        return needed == 0

    def _pass_gap(self) -> bool:
        """Go to the next frame behind tags or garbage; False at the end of the file."""
        data, at = self.data, self._at
        behind = after_end_tags(data, at)
        if behind == len(data) or is_padding(data, behind):
            return False
        self._at = behind
        if behind > at and _frame(data[behind : behind + 4]):
            return True
        found = _frame(data[at : at + 4])
        cut = found is not None and at + found[1] > len(data)
        if not self._seek_frame(first=False):
            if cut:
                self.warnings.append(_CUT_FRAME)
            elif len(data) - behind > 1:
                self.warnings.append(f"damaged: the last {len(data) - behind} bytes are no MP3 frames")
            return False
        self.warnings.append("damaged: the MP3 decoder skipped or muted parts of it")
        return True

    def _seek_frame(self, *, first: bool) -> bool:
        """Go to the next position where frames follow one another; False if there is none."""
        start = self._at
        for match in _HEADER.finditer(self.data, start if first else start + 1):
            at = match.start()
            self._trials += 1
            if self._trials > _MOST_TRIALS:
                raise UnreadableError("a file that is damaged or cut short (few MP3 frames)", convertible=False)
            known = None if first else self.segments[-1].format
            if not ((known and self._agrees(at, 2, known)) or self._agrees(at, _SURE_FRAMES)):
                continue
            if first and (before := len(self.data[start:at].lstrip(b"\0"))):
                if before > _MOST_BEFORE:
                    return False
                self.warnings.append(f"beginning: {before} bytes before the first whole MP3 frame are no sound")
            self._at = at
            return True
        return False

    def _agrees(self, at: int, n_frames: int, form: _Format | None = None) -> bool:
        """Return True if this many frames of one format follow one another, or fewer up to the end."""
        for _ in range(n_frames):
            found = _frame(self.data[at : at + 4])
            if found is None or (form is not None and found[0] != form):
                return False
            form, at = found[0], at + found[1]
            if after_end_tags(self.data, min(at, len(self.data))) == len(self.data):
                return at <= len(self.data)
        return True


def _trimmed(frame: bytes, tag_at: int) -> int:
    """Return the delay and padding that a header frame of LAME's form states; libsndfile's decoder removes them."""
    at = tag_at + 8
    for flag, size in ((1, 4), (2, 4), (4, 100), (8, 4)):
        at += size if frame[tag_at + 7] & flag else 0
    if len(frame) < at + 24:
        return 0
    packed = int.from_bytes(frame[at + 21 : at + 24], "big")
    return (packed >> 12) + (packed & 0xFFF)
