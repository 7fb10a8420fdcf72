"""Finds the samples of WAV, RF64 and AIFF files; the header is read here, the sizes that it states are checked.

Programs that write to a pipe do not know the length, others state it a few bytes off, and others leave out the byte of
padding after an odd chunk. What the file holds counts, and libsndfile gets bare samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from heartvoice.audio.sound_part import (
    MAX_HEADER_STEPS,
    SoundPart,
    SoundParts,
    UnreadableError,
    after_end_tags,
    check_joined,
    cut_short,
    is_padding,
    longer,
)

ByteOrder = Literal["big", "little"]

_PCM, _FLOAT, _ALAW, _ULAW, _EXTENSIBLE = 1, 3, 6, 7, 0xFFFE
"""Format tags of WAV."""
_CODECS = {2: "MS_ADPCM", 0x11: "IMA_ADPCM", 0x31: "GSM610", 0x40: "G721", 0x50: "MPEG layer II", 0x55: "MP3"}
"""Other codecs that are common in WAV; named in the error message."""
_PCM_SUBTYPES = {1: "PCM_U8", 2: "PCM_16", 3: "PCM_24", 4: "PCM_32"}
_FLOAT_SUBTYPES = {4: "FLOAT", 8: "DOUBLE"}
_AIFC = {
    b"NONE": "", b"twos": "", b"in24": "", b"in32": "", b"sowt": "", b"raw ": "PCM_U8",
    b"fl32": "FLOAT", b"FL32": "FLOAT", b"fl64": "DOUBLE", b"FL64": "DOUBLE",
    b"ulaw": "ULAW", b"ULAW": "ULAW", b"alaw": "ALAW", b"ALAW": "ALAW",
}  # fmt: skip
"""Encodings of AIFF-C as subtypes of libsndfile; empty means PCM, whose width is stated."""
_SAMPLE_BYTES = {
    "PCM_S8": 1, "PCM_U8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8, "ULAW": 1, "ALAW": 1,
}  # fmt: skip
_STREAMED = 0x7FFF0000
"""Size above which a header was written before the length was known."""
_CHUNK_NAMES = frozenset(
    b"fmt |data|fact|LIST|bext|iXML|axml|id3 |ID3 |JUNK|junk|PAD |FLLR|cue |plst|smpl|inst|PEAK|DISP|afsp|chna|umid|"
    b"minf|elm1|regn|acid|strc|_PMX|SyLp|Cr8r|cart|levl|link|ds64|COMM|SSND|MARK|INST|FVER|NAME|AUTH|ANNO|(c) |COMT|"
    b"MIDI|APPL|CHAN|AESD|SAXL|RIFF|FORM|RF64".split(b"|")
)  # fmt: skip
"""Chunks by which an odd chunk without its byte of padding is recognised."""


@dataclass(frozen=True)
class _Encoding:
    """How bare samples are to be read."""

    subtype: str
    channels: int
    sample_rate_hz: int
    endian: ByteOrder

    @property
    def frame_bytes(self) -> int:
        return self.channels * _SAMPLE_BYTES[self.subtype]


@dataclass
class _Form:
    """What one RIFF or FORM says, and where its samples are."""

    container: str
    order: ByteOrder
    end: int
    encoding: _Encoding
    start: int
    n_bytes: int
    mask: int = 0
    declared_frames: int | None = None
    surplus: bool = False
    """The samples go on behind the stated end."""


def is_wav(data: bytes, at: int = 0) -> bool:
    """Return True if a WAV, RF64 or BW64 file begins at `at`."""
    return data[at : at + 4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and data[at + 8 : at + 12] == b"WAVE"


def is_aiff(data: bytes, at: int = 0) -> bool:
    """Return True if an AIFF or AIFF-C file begins at `at`."""
    return data[at : at + 4] == b"FORM" and data[at + 8 : at + 12] in (b"AIFF", b"AIFC")


def pcm_parts(data: bytes, at: int = 0) -> SoundParts:
    """Find the samples of the WAV or AIFF file at offset `at`, and of those that were joined to it end to end.

    Raises:
        UnreadableError: damaged, of another encoding, or joined of different formats.
    """
    forms, warnings = list[_Form](), list[str]()
    while is_wav(data, at) or is_aiff(data, at):
        form = _read_form(data, at)
        if forms and form.encoding != forms[0].encoding:
            raise UnreadableError(f"{form.container} files of different formats, joined end to end")
        forms.append(form)
        warnings += _length_warnings(form)
        at = form.end
        check_joined(form.container, len(forms))
    view = memoryview(data)
    parts = tuple(_part(view, form) for form in forms)
    return SoundParts(forms[0].container, parts, tuple(warnings), forms[0].mask)


def _part(view: memoryview, form: _Form) -> SoundPart:
    encoding = form.encoding
    frames = form.n_bytes // encoding.frame_bytes
    raw: dict[str, str | int] = {
        "format": "RAW", "subtype": encoding.subtype, "channels": encoding.channels,
        "samplerate": encoding.sample_rate_hz, "endian": encoding.endian.upper(),
    }  # fmt: skip
    return SoundPart(view[form.start : form.start + frames * encoding.frame_bytes], frames, raw=raw)


def _length_warnings(form: _Form) -> list[str]:
    present, rate_hz = form.n_bytes // form.encoding.frame_bytes, form.encoding.sample_rate_hz
    if form.declared_frames is not None and present < form.declared_frames:
        return [cut_short(form.declared_frames, present, rate_hz)]
    if form.surplus and form.declared_frames is not None and present > form.declared_frames:
        return [longer(form.declared_frames, present, rate_hz)]
    return []


def _read_form(data: bytes, at: int) -> _Form:
    """Walk the chunks of one RIFF or FORM up to its samples, and find where these end."""
    wav = is_wav(data, at)
    container = "WAV" if wav else "AIFF"
    order: ByteOrder = "little" if data[at : at + 4] in (b"RIFF", b"RF64", b"BW64") else "big"
    encoding, mask, long_size, promised = None, 0, 0, None
    sound: tuple[int, int] | None = None
    position = at + 12
    for _ in range(MAX_HEADER_STEPS):
        if position + 8 > len(data) or (position > at + 12 and (is_wav(data, position) or is_aiff(data, position))):
            break
        name, size = data[position : position + 4], int.from_bytes(data[position + 4 : position + 8], order)
        start = position + 8
        if name == b"ds64" and wav:
            long_size = int.from_bytes(data[start + 8 : start + 16], "little")
        elif name == b"fmt " and wav:
            encoding, mask = _wav_encoding(data[start : start + min(size, 64)], order)
        elif name == b"COMM" and not wav:
            encoding, promised = _aiff_encoding(data[start : start + min(size, 64)])
        elif name == (b"data" if wav else b"SSND"):
            sound = (start, long_size if size == 0xFFFFFFFF and long_size else size)
            if wav or encoding:
                break
        position = _next_chunk(data, start, size)
    else:
        raise UnreadableError(f"{container} with {MAX_HEADER_STEPS} chunks before its sound", convertible=False)
    if encoding is None or sound is None:
        missing = "no description of its samples" if encoding is None else "no samples"
        raise UnreadableError(f"a file that is damaged or cut short ({container} with {missing})", convertible=False)
    start, size = sound
    if not wav:  # offset and block size, which are 0 in all but a few files
        skipped = min(8 + int.from_bytes(data[start : start + 4], "big"), max(size, 8))
        start, size = start + skipped, max(size - skipped, 0)
    return _bounded(data, _Form(container, order, len(data), encoding, start, size, mask, promised))


def _bounded(data: bytes, form: _Form) -> _Form:
    """Set the end of the samples by what the file holds."""
    start, size, present = form.start, form.n_bytes, max(len(data) - form.start, 0)
    frame_bytes = form.encoding.frame_bytes
    if size >= _STREAMED:
        form.n_bytes = present
        form.declared_frames = None
        return _up_to_join(data, form)
    end = start + size
    if form.declared_frames is None or form.declared_frames * frame_bytes > size:
        form.declared_frames = size // frame_bytes
    if size >= present:
        form.n_bytes = present
        return form
    follows = _end_of_chunks(data, end, size, form.order)
    if follows is not None:
        form.end = follows
        return form
    # What follows is no chunk: the stated size is too small, or 0 since the length was not known.
    form.n_bytes, form.surplus = present, True
    if size == 0:
        form.declared_frames = None
    return form


def _up_to_join(data: bytes, form: _Form) -> _Form:
    """End samples of unknown length where another file with its header begins: two streams, joined."""
    magic = b"RIFF" if form.container == "WAV" else b"FORM"
    at = data.find(magic, form.start)
    for _ in range(MAX_HEADER_STEPS):
        if at < 0:
            break
        if is_wav(data, at) or is_aiff(data, at):
            form.n_bytes, form.end = at - form.start, at
            break
        at = data.find(magic, at + 1)
    return form


def _end_of_chunks(data: bytes, at: int, size: int, order: ByteOrder) -> int | None:
    """Follow the chunks behind the samples: return the end of the file or the beginning of a joined one.

    None means that what follows is neither chunks, nor tags, nor padding.
    """
    if size % 2 and not _known_name(data, at):
        at += 1
    for _ in range(MAX_HEADER_STEPS):
        at = after_end_tags(data, at)
        if is_wav(data, at) or is_aiff(data, at):
            return at
        if is_padding(data, at):
            return len(data)
        if len(data) - at < 8:
            return None
        name = data[at : at + 4]
        length = int.from_bytes(data[at + 4 : at + 8], order)
        fits = at + 8 + length <= len(data)
        if not (name in _CHUNK_NAMES or (fits and name.isascii() and name.decode("ascii").isprintable())):
            return None
        if not fits:
            return len(data)
        at = _next_chunk(data, at + 8, length)
    return len(data)


def _next_chunk(data: bytes, start: int, size: int) -> int:
    """Return where the next chunk begins: at an even offset, unless the byte of padding was left out."""
    end = start + size
    if size % 2 == 0:
        return end
    return end if _known_name(data, end) and not _known_name(data, end + 1) else end + 1


def _known_name(data: bytes, at: int) -> bool:
    return data[at : at + 4] in _CHUNK_NAMES


def _wav_encoding(chunk: bytes, order: ByteOrder) -> tuple[_Encoding, int]:
    """Return what a `fmt ` chunk says, and the channel mask."""
    if len(chunk) < 14:
        raise UnreadableError("a file that is damaged or cut short (WAV with half a header)", convertible=False)

    def number(at: int, n_bytes: int) -> int:
        return int.from_bytes(chunk[at : at + n_bytes], order)

    tag, channels, rate_hz, block, bits = number(0, 2), number(2, 2), number(4, 4), number(12, 2), number(14, 2)
    mask = 0
    if tag == _EXTENSIBLE:
        mask, tag = number(20, 4), number(24, 2)  # the sub-format begins with the tag
    # Samples may lie in wider containers; a container that is too narrow is a wrong number.
    width = max(block // channels if channels and block % channels == 0 else 0, (bits + 7) // 8)
    if tag == _PCM:
        subtype = _PCM_SUBTYPES.get(width) or _PCM_SUBTYPES.get((bits + 7) // 8)
    elif tag == _FLOAT:
        subtype = _FLOAT_SUBTYPES.get(width) or _FLOAT_SUBTYPES.get(bits // 8)
    elif tag in (_ALAW, _ULAW):
        subtype = "ALAW" if tag == _ALAW else "ULAW"
    else:
        raise UnreadableError(f"WAV with {_CODECS.get(tag, hex(tag))}")
    if subtype is None or not channels:
        raise UnreadableError(f"WAV with {bits} bits in {channels} channels", convertible=False)
    return _Encoding(subtype, channels, rate_hz, order), mask


def _aiff_encoding(chunk: bytes) -> tuple[_Encoding, int]:
    """Return what a `COMM` chunk says, and the number of samples per channel."""
    if len(chunk) < 18:
        raise UnreadableError("a file that is damaged or cut short (AIFF with half a header)", convertible=False)
    channels, frames = int.from_bytes(chunk[:2], "big"), int.from_bytes(chunk[2:6], "big")
    bits, coding = int.from_bytes(chunk[6:8], "big"), chunk[18:22] or b"NONE"
    if coding not in _AIFC:
        raise UnreadableError(f"AIFF with {coding.decode('ascii', 'replace').strip()}")
    subtype = _AIFC[coding] or {1: "PCM_S8", 2: "PCM_16", 3: "PCM_24", 4: "PCM_32"}.get((bits + 7) // 8)
    if subtype is None or not channels:
        raise UnreadableError(f"AIFF with {bits} bits in {channels} channels", convertible=False)
    exponent, mantissa = int.from_bytes(chunk[8:10], "big") - 16_383 - 63, int.from_bytes(chunk[10:18], "big")
    # An 80-bit float. Only rates below 2^31 are written with a negative exponent.
    rate_hz = mantissa >> -exponent if -64 < exponent < 0 else 0
    return _Encoding(subtype, channels, rate_hz, "little" if coding == b"sowt" else "big"), frames
