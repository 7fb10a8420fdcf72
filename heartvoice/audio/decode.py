"""Sound files from strangers, decoded with bounds: WAV, FLAC, OGG and MP3 by libsndfile, and nothing else it can read.

What a header promises is checked before anything is decoded, and what comes out is counted again, so that neither a
lying header nor a file that unpacks to hours takes more memory than the longest allowed recording.
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
from heartvoice.contracts.constants import MAX_CHANNELS, MAX_FILE_BYTES, MAX_INPUT_RATE_HZ, MIN_INPUT_RATE_HZ
from heartvoice.errors import InvalidRequestError

Samples = NDArray[np.float32]

ALLOWED = "WAV (PCM or float), FLAC, OGG (Vorbis or Opus) or MP3"
_SAMPLE_BYTES = {"PCM_U8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8}
"""Of the kinds of WAV."""
_SUBTYPES = {
    "WAV": set(_SAMPLE_BYTES),
    "WAVEX": set(_SAMPLE_BYTES),
    "FLAC": {"PCM_S8", "PCM_16", "PCM_24"},
    "OGG": {"VORBIS", "OPUS"},
    "MP3": {"MPEG_LAYER_III"},
}
_WAV_TAGS, _WAV_EXTENSIBLE = (1, 3), 0xFFFE
"""PCM and float."""
_WAV_MOST_CHUNKS = 1000
"""Before the sound; real files have a handful. A file of nothing but empty chunks would keep us for many seconds."""
_WAV_CODECS = {2: "MS_ADPCM", 6: "ALAW", 7: "ULAW", 0x11: "IMA_ADPCM", 0x31: "GSM610", 0x40: "G721", 0x55: "MP3"}
"""Those that are met; for the message."""
_OTHERS = (
    (re.compile(rb"FORM....AIF[FC]", re.DOTALL), "AIFF"), (re.compile(rb"caff"), "CAF"),
    (re.compile(rb"RF64|BW64"), "RF64"), (re.compile(rb"riff\x2e\x91\xcf\x11"), "W64"), (re.compile(rb"\.snd"), "AU"),
    (re.compile(rb"....ftyp", re.DOTALL), "MP4"), (re.compile(rb"\x1aE\xdf\xa3"), "Matroska or WebM"),
    (re.compile(rb"\x89PNG|\xff\xd8\xff|GIF8|BM|RIFF....WEBP", re.DOTALL), "an image"),
    (re.compile(rb"%PDF"), "PDF"), (re.compile(rb"PK\x03\x04"), "a ZIP archive"), (re.compile(rb"\x1f\x8b"), "gzip"),
)  # fmt: skip
_UNKNOWN_LENGTH = 2**62
"""libsndfile's number of frames where a header gives none."""
_END_OF_STREAM = 4
"""Flag of an OGG page."""
_STREAMED = 0x7FFFFF00
"""A WAV header written before its length was known gives about this size or a larger one."""


@dataclass(frozen=True, eq=False)
class SoundFile:
    """What a file held: float32 [C, N], its rate, and what is wrong with it but bearable."""

    audio: Samples
    sample_rate_hz: int
    warnings: tuple[str, ...] = ()


def decode(data: bytes, *, field: str, max_s: float, max_bytes: int = MAX_FILE_BYTES) -> SoundFile:
    """Decode a whole file.

    Args:
        data: the file.
        field: the input's name, for messages.
        max_s: longest allowed duration; memory for that many samples at the file's rate is the most that is used.
        max_bytes: longest allowed file; the default is what a request may carry.

    Returns:
        One or two channels of at least one finite sample; the shortest allowed duration is for the caller to check.

    Raises:
        InvalidRequestError: names the field, what is allowed and what the file is.
    """
    if len(data) > max_bytes:
        raise InvalidRequestError(f"{field}: expected at most {max_bytes} bytes, got {len(data)}")
    container = _container(data, field)
    if container != "MP3":
        audio, rate_hz = _read(data, field, max_s)
        return SoundFile(audio, rate_hz, _end_warning(data, container))
    with _quiet_mpg123() as complaints:
        audio, rate_hz = _read(data, field, max_s)
    damaged = ("damaged: the MP3 decoder skipped or muted parts of it",) if complaints.damaged else ()
    return SoundFile(audio, rate_hz, damaged)


def _container(data: bytes, field: str) -> str:
    """Which allowed container the bytes begin like; libsndfile sees no others."""
    if not data:
        raise InvalidRequestError(f"{field}: expected {ALLOWED}, got no bytes")
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
    """Refuse a WAV of another codec before libsndfile prepares it: those decoders are old, and no song needs them."""
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
    """Check the header, then decode in blocks of a second, into one array."""
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
    check_rate(file.samplerate, field)
    # Without a Xing header an MP3's length is a guess from the bit rate of its beginning: counting decides.
    limit_s = 2 * max_s if file.format == "MP3" else max_s
    if limit_s * file.samplerate < file.frames < _UNKNOWN_LENGTH:
        raise InvalidRequestError(f"{field}: expected at most {max_s:g} s, got {file.frames / file.samplerate:.6g} s")


def check_rate(rate_hz: int, field: str) -> None:
    """Refuse a sample rate outside the contract.

    Raises:
        InvalidRequestError: names the field, the limits and the value.
    """
    if not MIN_INPUT_RATE_HZ <= rate_hz <= MAX_INPUT_RATE_HZ:
        raise InvalidRequestError(
            f"{field}: expected a sample rate of {MIN_INPUT_RATE_HZ} to {MAX_INPUT_RATE_HZ} Hz, got {rate_hz} Hz"
        )


def _decode_blocks(file: soundfile.SoundFile, field: str, max_s: float) -> Samples:
    capacity = int(max_s * file.samplerate)
    if file.format != "MP3":
        capacity = min(capacity, file.frames)
    audio = np.empty((file.channels, capacity), np.float32)  # pages that are never written take no memory
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
    """A sound file read once from beginning to end.

    soundfile seeks after every read of a file that can: needless here, and FLAC of unknown length then fails.
    """

    def seekable(self) -> bool:
        return False


# --------------------------------------------------------------------------------------------------- is all of it there


def _check_whole(file: soundfile.SoundFile, data: bytes, n_frames: int, field: str) -> None:
    """Refuse a file that its own header shows to be cut short."""
    promised = file.frames
    if file.format in ("WAV", "WAVEX"):
        n_bytes, there = _wav_data(data)
        if there < n_bytes < _STREAMED:
            promised = n_bytes // (file.channels * _SAMPLE_BYTES[file.subtype])
    known = promised < _UNKNOWN_LENGTH and (file.format != "MP3" or _has_xing(data))
    if known and n_frames < promised:
        raise InvalidRequestError(
            f"{field}: expected the {promised} samples that its header promises, got {n_frames}: the file is cut"
            " short or damaged"
        )


def _byte_order(data: bytes) -> Literal["big", "little"]:
    return "big" if data.startswith(b"RIFX") else "little"


def _wav_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Each chunk's name, where its data begin, and the size that it claims."""
    at = 12
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], _byte_order(data))
        yield data[at : at + 4], at + 8, size
        at += 8 + size + size % 2


def _wav_data(data: bytes) -> tuple[int, int]:
    """Bytes that the data chunk claims, and bytes that are there; zeros without such a chunk."""
    for name, start, size in _wav_chunks(data):
        if name == b"data":
            return size, min(size, len(data) - start)
    return 0, 0


def _has_xing(data: bytes) -> bool:
    """Whether the first MP3 frame carries the exact number of frames."""
    at = 0
    if data.startswith(b"ID3") and len(data) > 10:
        at = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(data[6:10], (21, 14, 7, 0), strict=True))
    return any(tag in data[at : at + 2048] for tag in (b"Xing", b"Info", b"VBRI"))


def _end_warning(data: bytes, container: str) -> tuple[str, ...]:
    """An OGG stream closes with a page that says so; a recorded broadcast rightly lacks it."""
    at = data.rfind(b"OggS") if container == "OGG" else -1
    if at < 0:
        return ()
    header = data[at : at + 27]  # flags in byte 5, number of segments in byte 26, then the length of each
    segments = data[at + 27 : at + 27 + header[26]] if len(header) == 27 else b""
    whole = len(header) == 27 and len(segments) == header[26] and at + 27 + header[26] + sum(segments) <= len(data)
    if whole and header[5] & _END_OF_STREAM:
        return ()
    return ("no end: the OGG stream lacks its last page, it may be cut short",)


# --------------------------------------------------------------------------------------------------------- mpg123 talks

_stderr_lock = threading.Lock()
_STDERR = 2
_MPG123 = re.compile(rb"Note: |Warning: |\[[^\]\n]*mpg123[^\]\n]*\] ")
_DAMAGE = re.compile(rb"Note: (?:Illegal|Trying|Skipped)|\[[^\]\n]*mpg123[^\]\n]*\] error")


@dataclass
class _Complaints:
    """Whether the MP3 decoder met something that it could not decode."""

    damaged: bool = False


@contextmanager
def _quiet_mpg123() -> Iterator[_Complaints]:
    """Keep what mpg123 says about strangers' files off the process's standard error.

    libsndfile gives no way to silence it, so the descriptor itself is turned aside, one MP3 at a time. Lines that other
    threads write meanwhile are written out afterwards.
    """
    complaints = _Complaints()
    with _stderr_lock, tempfile.TemporaryFile() as aside:
        try:
            real = os.dup(_STDERR)
        except OSError:  # closed: nothing can be printed
            yield complaints
            return
        os.dup2(aside.fileno(), _STDERR)
        try:
            yield complaints
        finally:
            os.dup2(real, _STDERR)
            os.close(real)
            aside.seek(0)
            for line in aside:
                if _DAMAGE.match(line):
                    complaints.damaged = True
                elif not _MPG123.match(line):
                    os.write(_STDERR, line)
