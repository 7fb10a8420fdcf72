"""Decodes untrusted sound files within bounds: WAV, FLAC, OGG and MP3, by libsndfile.

Other formats that libsndfile reads are refused. The header's claims are checked before decoding and the decoded samples
are counted again. So neither a false header nor a file that unpacks to hours takes more memory than the longest allowed
recording.
"""

from __future__ import annotations

import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import soundfile
from numpy.typing import NDArray

from heartvoice.audio.bytes_file import ByteSource
from heartvoice.contracts.constants import MAX_CHANNELS, MAX_FILE_BYTES
from heartvoice.contracts.field_checks import check_file_size, check_rate
from heartvoice.errors import InvalidRequestError

Samples = NDArray[np.float32]

ALLOWED = "WAV (PCM or float), FLAC, OGG (Vorbis or Opus) or MP3"
_SAMPLE_BYTES = {"PCM_U8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8}
"""Bytes per sample of each WAV encoding."""
_SUBTYPES = {
    "WAV": set(_SAMPLE_BYTES),
    "WAVEX": set(_SAMPLE_BYTES),
    "FLAC": {"PCM_S8", "PCM_16", "PCM_24"},
    "OGG": {"VORBIS", "OPUS"},
    "MP3": {"MPEG_LAYER_III"},
}
_WAV_TAGS, _WAV_EXTENSIBLE = (1, 3), 0xFFFE
"""Format tags of PCM and float, and of the extensible header."""
_WAV_MOST_CHUNKS = 1000
"""Limit of chunks before the samples; real files have a handful, and thousands of empty ones take many seconds."""
_WAV_CODECS = {2: "MS_ADPCM", 6: "ALAW", 7: "ULAW", 0x11: "IMA_ADPCM", 0x31: "GSM610", 0x40: "G721", 0x55: "MP3"}
"""Other codecs that are common in WAV files; named in the error message."""
_OTHERS = (
    (re.compile(rb"FORM....AIF[FC]", re.DOTALL), "AIFF"), (re.compile(rb"caff"), "CAF"),
    (re.compile(rb"RF64|BW64"), "RF64"), (re.compile(rb"riff\x2e\x91\xcf\x11"), "W64"), (re.compile(rb"\.snd"), "AU"),
    (re.compile(rb"....ftyp", re.DOTALL), "MP4"), (re.compile(rb"\x1aE\xdf\xa3"), "Matroska or WebM"),
    (re.compile(rb"\x89PNG|\xff\xd8\xff|GIF8|BM|RIFF....WEBP", re.DOTALL), "an image"),
    (re.compile(rb"%PDF"), "PDF"), (re.compile(rb"PK\x03\x04"), "a ZIP archive"), (re.compile(rb"\x1f\x8b"), "gzip"),
)  # fmt: skip
_UNKNOWN_LENGTH = 2**62
"""libsndfile's number of frames for a header that gives none."""
_END_OF_STREAM = 4
"""End-of-stream flag of an OGG page."""
_STREAMED = 0x7FFFFF00
"""Data size above which a WAV header was written by a stream, before its length was known."""


@dataclass(frozen=True, eq=False)
class SoundFile:
    """Decoded file: float32 [C, N] and its rate; `warnings` names tolerable faults."""

    audio: Samples
    sample_rate_hz: int
    warnings: tuple[str, ...] = ()


def decode(data: bytes, *, field: str, max_s: float, max_bytes: int = MAX_FILE_BYTES) -> SoundFile:
    """Decode a whole file.

    Args:
        data: content of the file.
        field: name of the input, for messages.
        max_s: longest allowed duration; at most that many samples at the file's rate are held in memory.
        max_bytes: longest allowed file; the default is a request's limit.

    Returns:
        One or two channels of at least one finite sample. The caller checks the shortest allowed duration.

    Raises:
        InvalidRequestError: the message gives field, allowed formats or limit, and the file's.
    """
    check_file_size(field, len(data))
    if len(data) > max_bytes:
        raise InvalidRequestError(f"{field}: expected at most {max_bytes} bytes, got {len(data)}")
    container = _container(data, field)
    if container != "MP3":
        audio, rate_hz = _read(data, field, max_s)
        return SoundFile(audio, rate_hz, _end_warning(data, container))
    with _quiet_mpg123() as status:
        audio, rate_hz = _read(data, field, max_s)
    damaged = ("damaged: the MP3 decoder skipped or muted parts of it",) if status.damaged else ()
    return SoundFile(audio, rate_hz, damaged)


def _container(data: bytes, field: str) -> str:
    """Identify the container by its first bytes; libsndfile gets only allowed ones."""
    if data[:4] in (b"RIFF", b"RIFX") and data[8:12] == b"WAVE":
        _check_wav_codec(data, field)
        return "WAV"
    for magic, name in ((b"fLaC", "FLAC"), (b"OggS", "OGG"), (b"ID3", "MP3")):
        if data.startswith(magic):
            return name
    if len(data) > 3 and data[0] == 0xFF and data[1] & 0xE6 == 0xE2:  # eleven sync bits, layer III
        return "MP3"
    kind = next((name for pattern, name in _OTHERS if pattern.match(data)), "")
    raise InvalidRequestError(f"{field}: expected {ALLOWED}, got {kind or f'data that begins with {data[:8]!r}'}")


def _check_wav_codec(data: bytes, field: str) -> None:
    """Refuse other WAV codecs before libsndfile initialises them: those decoders are old and unneeded."""
    for number, (name, start, _) in enumerate(_wav_chunks(data)):
        if name == b"data":
            return
        if number == _WAV_MOST_CHUNKS:
            raise InvalidRequestError(f"{field}: expected {ALLOWED}, got WAV with {number} chunks before its sound")
        if name != b"fmt ":
            continue
        tag = int.from_bytes(data[start : start + 2], _byte_order(data))
        if tag == _WAV_EXTENSIBLE:
            tag = int.from_bytes(data[start + 24 : start + 26], _byte_order(data))  # begins the sub-format
        if tag not in _WAV_TAGS:
            raise InvalidRequestError(f"{field}: expected {ALLOWED}, got WAV with {_WAV_CODECS.get(tag, hex(tag))}")


# ------------------------------------------------------------------------------------------------------------ decoding


def _read(data: bytes, field: str, max_s: float) -> tuple[Samples, int]:
    """Check the header, then decode in blocks of one second into one array."""
    try:
        with _Forward(ByteSource(data)) as file:
            _check_header(file, field, max_s)
            audio = _decode_blocks(file, field, max_s)
            _check_whole(file, data, audio.shape[1], field)
            return audio, int(file.samplerate)
    except soundfile.LibsndfileError as error:
        reason = error.error_string.rstrip(". ")
    except soundfile.SoundFileError as error:
        reason = str(error)
    raise InvalidRequestError(f"{field}: expected {ALLOWED}, got a file that is damaged or cut short ({reason})")


def _check_header(file: soundfile.SoundFile, field: str, max_s: float) -> None:
    if file.subtype not in _SUBTYPES.get(file.format, ()):
        raise InvalidRequestError(f"{field}: expected {ALLOWED}, got {file.format} with {file.subtype}")
    if not 1 <= file.channels <= MAX_CHANNELS:
        raise InvalidRequestError(f"{field}: expected 1 or 2 channels, got {file.channels}")
    check_rate(field, file.samplerate)
    # Without a Xing header an MP3's length is estimated from its first bit rate; the decoded samples are counted.
    limit_s = 2 * max_s if file.format == "MP3" else max_s
    if limit_s * file.samplerate < file.frames < _UNKNOWN_LENGTH:
        raise InvalidRequestError(f"{field}: expected at most {max_s:g} s, got {file.frames / file.samplerate:.6g} s")


def _decode_blocks(file: soundfile.SoundFile, field: str, max_s: float) -> Samples:
    capacity = int(max_s * file.samplerate)
    if file.format != "MP3":
        capacity = min(capacity, file.frames)
    audio = np.empty((file.channels, capacity), np.float32)  # untouched pages take no memory
    n = 0
    while len(block := file.read(file.samplerate, dtype="float32", always_2d=True)):
        if n + len(block) > capacity:
            raise InvalidRequestError(f"{field}: expected at most {max_s:g} s, got more")
        if not np.isfinite(block).all():
            raise InvalidRequestError(f"{field}: expected finite samples, got NaN or Inf")
        audio[:, n : n + len(block)] = block.T
        n += len(block)
    if n == 0:
        raise InvalidRequestError(f"{field}: expected sound, got a file with no samples")
    return audio if n == capacity else np.ascontiguousarray(audio[:, :n])


class _Forward(soundfile.SoundFile):  # type: ignore[misc]
    """A sound file that is read once, sequentially.

    soundfile seeks after every read of a seekable file. That is needless here, and fails for FLAC of unknown length.
    """

    def seekable(self) -> bool:
        return False


# -------------------------------------------------------------------------------------------------------- completeness


def _check_whole(file: soundfile.SoundFile, data: bytes, n_frames: int, field: str) -> None:
    """Refuse a file that holds fewer samples than its header declares."""
    declared = file.frames
    if file.format in ("WAV", "WAVEX"):
        n_bytes, present = _wav_data(data)
        if present < n_bytes < _STREAMED:
            declared = n_bytes // (file.channels * _SAMPLE_BYTES[file.subtype])
    known = declared < _UNKNOWN_LENGTH and (file.format != "MP3" or _has_xing(data))
    if known and n_frames < declared:
        raise InvalidRequestError(
            f"{field}: expected the {declared} samples that its header promises, got {n_frames}: the file is cut"
            " short or damaged"
        )


def _byte_order(data: bytes) -> Literal["big", "little"]:
    return "big" if data.startswith(b"RIFX") else "little"


def _wav_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield each chunk's name, offset of its data and declared size."""
    at = 12
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], _byte_order(data))
        yield data[at : at + 4], at + 8, size
        at += 8 + size + size % 2


def _wav_data(data: bytes) -> tuple[int, int]:
    """Return the declared and the present bytes of the data chunk; zeros without one."""
    for name, start, size in _wav_chunks(data):
        if name == b"data":
            return size, min(size, len(data) - start)
    return 0, 0


def _has_xing(data: bytes) -> bool:
    """Return True if the first MP3 frame states the exact number of frames."""
    at = 0
    if data.startswith(b"ID3") and len(data) > 10:
        at = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(data[6:10], (21, 14, 7, 0), strict=True))
    return any(tag in data[at : at + 2048] for tag in (b"Xing", b"Info", b"VBRI"))


def _end_warning(data: bytes, container: str) -> tuple[str, ...]:
    """Warn of an OGG stream without an end-of-stream page; recorded broadcasts legitimately lack it."""
    at = data.rfind(b"OggS") if container == "OGG" else -1
    if at < 0:
        return ()
    header = data[at : at + 27]  # flags in byte 5, number of segments in byte 26, followed by each segment's length
    segments = data[at + 27 : at + 27 + header[26]] if len(header) == 27 else b""
    whole = len(header) == 27 and len(segments) == header[26] and at + 27 + header[26] + sum(segments) <= len(data)
    if whole and header[5] & _END_OF_STREAM:
        return ()
    return ("no end: the OGG stream lacks its last page, it may be cut short",)


# ------------------------------------------------------------------------------------------------------ mpg123's output

_stderr_lock = threading.Lock()
_STDERR = 2
_MPG123 = re.compile(rb"Note: |Warning: |\[[^\]\n]*mpg123[^\]\n]*\] ")
_DAMAGE = re.compile(rb"Note: (?:Illegal|Trying|Skipped)|\[[^\]\n]*mpg123[^\]\n]*\] error")


@dataclass
class _DecoderStatus:
    """`damaged` is True if the MP3 decoder could not decode a part of the file."""

    damaged: bool = False


@contextmanager
def _quiet_mpg123() -> Iterator[_DecoderStatus]:
    """Keep mpg123's messages about untrusted files off the process's standard error.

    libsndfile cannot silence mpg123, so the descriptor itself is redirected, for one MP3 at a time. Lines of other
    threads in that time are written out afterwards.
    """
    status = _DecoderStatus()
    with _stderr_lock, tempfile.TemporaryFile() as captured:
        try:
            stderr_copy = os.dup(_STDERR)
        except OSError:  # closed: nothing can be printed
            yield status
            return
        os.dup2(captured.fileno(), _STDERR)
        try:
            yield status
        finally:
            os.dup2(stderr_copy, _STDERR)
            os.close(stderr_copy)
            captured.seek(0)
            for line in captured:
                if _DAMAGE.match(line):
                    status.damaged = True
                elif not _MPG123.match(line):
                    os.write(_STDERR, line)
