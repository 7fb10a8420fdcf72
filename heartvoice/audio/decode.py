"""Decodes untrusted sound files within bounds: WAV, AIFF, FLAC, OGG and MP3, by libsndfile.

Containers are read here and no length is believed: libsndfile stops at the length that a header states or that it
guesses, reads the first of several joined files, and refuses headers that are a little wrong. It gets pieces that it
reads to their end, and what comes out is counted. Neither a false header nor a file that unpacks to hours takes more
memory than the longest allowed recording. See docs/decisions/0018-decoding.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice

import numpy as np
import soundfile
from numpy.typing import NDArray

from heartvoice.audio.bytes_file import ByteSource
from heartvoice.audio.clipping import FULL_SCALE, clipping_warnings
from heartvoice.audio.downmix import MOST_CHANNELS, channel_order, downmix_gains
from heartvoice.audio.mp3_frames import mp3_parts
from heartvoice.audio.ogg_pages import ogg_parts
from heartvoice.audio.pcm_files import is_aiff, is_wav, pcm_parts
from heartvoice.audio.quiet_mpg123 import quiet_mpg123
from heartvoice.audio.sound_part import (
    MAX_HEADER_STEPS,
    SoundPart,
    SoundParts,
    UnreadableError,
    after_id3v2,
    check_joined,
    cut_short,
    longer,
)
from heartvoice.contracts.constants import MAX_CHANNELS, MAX_FILE_BYTES
from heartvoice.contracts.field_checks import check_file_size, check_rate
from heartvoice.errors import InvalidRequestError

Samples = NDArray[np.float32]

ALLOWED = "WAV or AIFF (PCM, float, A-law or µ-law), FLAC, OGG (Vorbis or Opus) or MP3"
CONVERT = "convert it, for example: ffmpeg -i INPUT -ac 2 OUTPUT.flac"
_SUBTYPES = {
    "RAW": {"PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"},
    "FLAC": {"PCM_S8", "PCM_16", "PCM_24"},
    "OGG": {"VORBIS", "OPUS"},
    "MP3": {"MPEG_LAYER_III"},
}
_SOUNDS = (
    (re.compile(rb"caff"), "CAF"), (re.compile(rb"riff\x2e\x91\xcf\x11"), "W64"), (re.compile(rb"\.snd"), "AU"),
    (re.compile(rb"....ftyp", re.DOTALL), "MP4 (AAC or ALAC)"), (re.compile(rb"\x1aE\xdf\xa3"), "Matroska or WebM"),
    (re.compile(rb"\xff[\xf0\xf1\xf8\xf9]"), "AAC"), (re.compile(rb"ADIF"), "AAC"), (re.compile(rb"wvpk"), "WavPack"),
    (re.compile(rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11"), "WMA"), (re.compile(rb"#!AMR"), "AMR"),
    (re.compile(rb"MAC "), "Monkey's Audio"), (re.compile(rb"MPCK|MP\+"), "Musepack"), (re.compile(rb"TTA1"), "TTA"),
    (re.compile(rb"DSD |FRM8"), "DSD"), (re.compile(rb"\x0b\x77"), "AC-3"), (re.compile(rb"MThd"), "MIDI"),
    (re.compile(rb"\xff[\xe4-\xe7\xf4-\xf7\xfc-\xff]"), "MPEG audio of layer I or II"),
    (re.compile(rb"RIFF....AVI ", re.DOTALL), "AVI"), (re.compile(rb"FLV\x01"), "FLV"),
)  # fmt: skip
"""What other programs read."""
_OTHERS = (
    (re.compile(rb"\x89PNG|\xff\xd8\xff|GIF8|BM|RIFF....WEBP", re.DOTALL), "an image"),
    (re.compile(rb"%PDF"), "PDF"), (re.compile(rb"PK\x03\x04"), "a ZIP archive"), (re.compile(rb"\x1f\x8b"), "gzip"),
)  # fmt: skip
_FLAC_BEGINNING = re.compile(rb"fLaC[\x00\x80]\x00\x00\x22")
_UNKNOWN_LENGTH = 2**62
"""libsndfile's number of frames for a header that gives none."""
_LEAST_READ = 4096
_LEAST_FRAME = 576
"""Samples of the smallest MP3 frame: a decoder that gives so many too few has left frames out."""
_DAMAGED_MP3 = "damaged: the MP3 decoder skipped or muted parts of it"


@dataclass(frozen=True, eq=False)
class SoundFile:
    """Decoded file: float32 [C, N] and its rate; `warnings` names tolerable faults."""

    audio: Samples
    sample_rate_hz: int
    warnings: tuple[str, ...] = ()


def decode(data: bytes, *, field: str, max_s: float, max_bytes: int = MAX_FILE_BYTES) -> SoundFile:
    """Decode a whole file; more than two channels are mixed down to stereo by ITU-R BS.775.

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
    check_file_size(field, len(data), max_bytes)
    try:
        parts = _parts(data)
        with quiet_mpg123() if parts.container == "MP3" else nullcontext() as status:
            decoder = _Decoder(parts, field, max_s)
            audio = decoder.run()
    except UnreadableError as error:
        advice = f"; {CONVERT}" if error.convertible else ""
        raise InvalidRequestError(f"{field}: expected {ALLOWED}, got {error}{advice}") from error
    damaged = [_DAMAGED_MP3] if status is not None and status.damaged else []
    warnings = tuple(dict.fromkeys((*parts.warnings, *decoder.warnings, *damaged)))
    return SoundFile(audio, decoder.sample_rate_hz, warnings)


# ----------------------------------------------------------------------------------------------------------- containers


def _parts(data: bytes) -> SoundParts:
    """Identify the container by its first bytes, and take it apart; libsndfile gets only allowed ones."""
    at = after_id3v2(data, 0)
    if is_wav(data, at) or is_aiff(data, at):
        return pcm_parts(data, at)
    if data.startswith(b"fLaC", at):
        return _flac_parts(data, at)
    if data.startswith(b"OggS", at):
        return ogg_parts(data, at)
    beginning = data[at : at + 16]
    if len(beginning) > 3 and beginning[0] == 0xFF and beginning[1] & 0xE6 == 0xE2:  # eleven sync bits, layer III
        return mp3_parts(data, at)
    for kinds, convertible in ((_SOUNDS, True), (_OTHERS, False)):
        for pattern, name in kinds:
            if pattern.match(beginning):
                raise UnreadableError(name, convertible=convertible)
    try:
        return mp3_parts(data, at)  # begins with zeros, or in the middle of a frame
    except UnreadableError as error:
        got = str(error) if at else f"data that begins with {data[:8]!r}"
        raise UnreadableError(got, convertible=False) from error


def _flac_parts(data: bytes, start: int) -> SoundParts:
    """Take joined FLAC files apart, and hide the stated lengths: libsndfile reads one file, up to its stated length."""
    found = islice(_FLAC_BEGINNING.finditer(data, start), MAX_HEADER_STEPS + 1)
    starts = [match.start() for match in found] or [start]
    check_joined("FLAC", len(starts))
    view = memoryview(data)
    parts = []
    for begin, end in zip(starts, [*starts[1:], len(data)], strict=True):
        info = data[
            begin : begin + 26
        ]  # rate, channels and bits end in the 36 bits of the length (RFC 9639, section 8.2)
        word = int.from_bytes(info[18:26], "big")
        if (bits := (word >> 36 & 31) + 1) > 24:
            raise UnreadableError(f"FLAC of {bits} bits")
        unknown = info[:18] + (word >> 36 << 36).to_bytes(8, "big") if len(info) == 26 else b""
        parts.append(SoundPart(view[begin:end], word & (1 << 36) - 1 or None, unknown))
    return SoundParts("FLAC", tuple(parts))


# ------------------------------------------------------------------------------------------------------------- decoding


class _Decoder:
    """Decodes the parts of one file in blocks into one array, within a number of seconds."""

    def __init__(self, parts: SoundParts, field: str, max_s: float) -> None:
        self._parts, self._field, self._max_s = parts, field, max_s
        self.sample_rate_hz = 0
        self.warnings: list[str] = []
        self._channels = 0
        self._gains: Samples | None = None
        self._audio = np.empty((0, 0), np.float32)
        self._n = 0
        self._loudest, self._n_clipped = 0.0, 0

    def run(self) -> Samples:
        """Return all samples, float32 [C, N]."""
        for part in self._parts.parts:
            if part.raw:  # before libsndfile gets numbers that it cannot hold
                check_rate(self._field, int(part.raw["samplerate"]))
                self._check_channels(int(part.raw["channels"]))
            source = ByteSource(part.data, part.head)
            with _opened(source, part) as file:
                self._begin(file)
                before = self._n
                try:
                    for block in _blocks(file, part):
                        self._append(block)
                except soundfile.SoundFileError as error:
                    self._check_end(error, source, part, self._n - before)
                self._check_count(file, part, self._n - before)
        if self._n == 0:
            faults = ", ".join(dict.fromkeys((*self._parts.warnings, *self.warnings)))
            reason = f" ({faults})" if faults else ""
            raise InvalidRequestError(f"{self._field}: expected sound, got a file with no samples{reason}")
        if self._loudest <= 1.0:  # floats go on above full scale
            self.warnings += clipping_warnings(self._n_clipped / (self._n * self._channels))
        full = self._n == self._audio.shape[1]
        return self._audio if full else np.ascontiguousarray(self._audio[:, : self._n])

    def _begin(self, file: soundfile.SoundFile) -> None:
        """Check a part's header, and make room with the first one."""
        if file.subtype not in _SUBTYPES.get(file.format, ()):
            raise UnreadableError(f"{file.format} with {file.subtype}")
        if self.sample_rate_hz:
            if (file.samplerate, file.channels) != (self.sample_rate_hz, self._channels):
                first, then = (self._channels, self.sample_rate_hz), (file.channels, file.samplerate)
                described = " and ".join(f"{rate} Hz, {n} channel{'s' * (n > 1)}" for n, rate in (first, then))
                raise UnreadableError(f"{self._parts.container} joined of files with {described}")
            self._check_length(file)
            return
        check_rate(self._field, file.samplerate)
        self.sample_rate_hz, self._channels = file.samplerate, file.channels
        self._set_channels(file.channels)
        length = self._check_length(file)
        capacity = int(self._max_s * self.sample_rate_hz)
        if length is not None and self._parts.container != "FLAC":  # where the length is the header's, not our count
            capacity = min(capacity, length)
        self._audio = np.empty((min(file.channels, MAX_CHANNELS), capacity), np.float32)  # untouched pages: no memory

    def _check_length(self, file: soundfile.SoundFile) -> int | None:
        """Refuse a file that is too long by our count or by this part's header; return our count if there is one."""
        counts = [part.frames for part in self._parts.parts]
        known = [count for count in counts if count is not None]
        length = sum(known) if len(known) == len(counts) else None
        claimed = length if length is not None else self._n + (file.frames if file.frames < _UNKNOWN_LENGTH else 0)
        if claimed > self._max_s * self.sample_rate_hz:
            raise InvalidRequestError(
                f"{self._field}: expected at most {self._max_s:g} s, got {claimed / self.sample_rate_hz:.6g} s"
            )
        return length

    def _check_channels(self, n_channels: int) -> None:
        if not 1 <= n_channels <= MOST_CHANNELS:
            raise UnreadableError(f"{n_channels} channels, expected 1 to {MOST_CHANNELS}")

    def _set_channels(self, n_channels: int) -> None:
        """Prepare the mix of more than two channels."""
        self._check_channels(n_channels)
        if n_channels <= MAX_CHANNELS:
            return
        order = channel_order(n_channels, container=self._parts.container, mask=self._parts.mask)
        if "" in order:
            raise UnreadableError(f"{n_channels} channels at positions that ITU-R BS.775 does not mix down")
        self._gains = downmix_gains(order)
        names = " ".join(order)
        self.warnings.append(f"multichannel: {n_channels} channels ({names}) were mixed down to stereo by ITU-R BS.775")

    def _append(self, block: Samples) -> None:
        end = self._n + len(block)
        if end > self._audio.shape[1]:
            raise InvalidRequestError(f"{self._field}: expected at most {self._max_s:g} s, got more")
        if not np.isfinite(block).all():
            raise InvalidRequestError(f"{self._field}: expected finite samples, got NaN or Inf")
        if self._gains is None:
            self._audio[:, self._n : end] = block.T
        else:  # what was clipped is not to be seen in the mix
            level = np.abs(block)
            self._loudest = max(self._loudest, float(level.max(initial=0.0)))
            self._n_clipped += int(np.sum(level >= FULL_SCALE))
            self._audio[:, self._n : end] = self._gains @ block.T
        self._n = end

    def _check_count(self, file: soundfile.SoundFile, part: SoundPart, n_frames: int) -> None:
        """Compare the samples with our own count, or else with what the part's header says."""
        if file.format == "FLAC":
            if part.frames is not None and n_frames != part.frames:
                how = cut_short if n_frames < part.frames else longer
                self.warnings.append(how(part.frames, n_frames, self.sample_rate_hz))
        elif part.frames is not None:
            if n_frames <= part.frames - _LEAST_FRAME:
                self.warnings.append(_DAMAGED_MP3)
        elif part.cut and n_frames < file.frames < _UNKNOWN_LENGTH:
            self.warnings.append(cut_short(file.frames, n_frames, self.sample_rate_hz))
        elif n_frames < file.frames < _UNKNOWN_LENGTH:
            promised = f"{n_frames} of the {file.frames} samples that its header promises"
            raise UnreadableError(f"a file that is damaged: {promised}", convertible=False)

    def _check_end(self, error: soundfile.SoundFileError, source: ByteSource, part: SoundPart, n_frames: int) -> None:
        """Let a FLAC file end with an error if it is complete with tags behind it, or was cut short.

        Raises:
            UnreadableError: there is sound behind the place, or it is another file.
        """
        complete = part.frames is not None and n_frames >= part.frames
        if self._parts.container != "FLAC" or not n_frames or not (complete or source.left == 0):
            raise UnreadableError(
                f"a file that is damaged or cut short ({_reason(error)})", convertible=False
            ) from error


@contextmanager
def _opened(source: ByteSource, part: SoundPart) -> Iterator[soundfile.SoundFile]:
    try:
        file = _Forward(source, **part.raw)
    except soundfile.SoundFileError as error:
        raise UnreadableError(f"a file that is damaged or cut short ({_reason(error)})", convertible=False) from error
    with file:
        yield file


def _reason(error: soundfile.SoundFileError) -> str:
    return str(getattr(error, "error_string", error)).rstrip(". ") or "no reason given"


def _blocks(file: soundfile.SoundFile, part: SoundPart) -> Iterator[Samples]:
    """Yield float32 [N, C] of a second, or of whole FLAC blocks: what a call that fails had read is lost."""
    size, surplus, left = int(file.samplerate), 0, 0
    if part.lead and part.frames is not None and file.frames < _UNKNOWN_LENGTH:
        surplus = max(file.frames - part.frames, 0)
    if file.format == "FLAC":
        block_size = max(int.from_bytes(part.data[8:10], "big"), 16)
        size, left = block_size * -(-_LEAST_READ // block_size), part.frames or 0
    while len(block := file.read(min(size, left) if left > 0 else size, dtype="float32", always_2d=True)):
        yield block[surplus:]
        surplus, left = max(surplus - len(block), 0), left - len(block)


class _Forward(soundfile.SoundFile):  # type: ignore[misc]
    """A sound file that is read once, sequentially.

    soundfile seeks after every read of a seekable file. That is needless here, and fails for FLAC of unknown length.
    """

    def seekable(self) -> bool:
        return False
