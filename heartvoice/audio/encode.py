"""Writes audio files atomically, with their provenance in the comment tag."""

from __future__ import annotations

import math
import os
import secrets
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from heartvoice.audio.bytes_file import ByteSource
from heartvoice.audio.id3 import id3_tag
from heartvoice.audio.quiet_mpg123 import quiet_mpg123
from heartvoice.contracts.attribution import without_credits
from heartvoice.contracts.constants import AUDIO_FORMATS, SAMPLE_RATE_HZ
from heartvoice.contracts.provenance import GENERATED, Tags
from heartvoice.errors import InvalidRequestError

_ENCODING: dict[str, dict[str, Any]] = {
    "wav": {"format": "WAV", "subtype": "PCM_24"},
    "flac": {"format": "FLAC", "subtype": "PCM_24"},
    # About 210 kbit/s: soundfile's default of 145 is audible on cymbals and sibilants.
    "mp3": {"format": "MP3", "subtype": "MPEG_LAYER_III", "bitrate_mode": "VARIABLE", "compression_level": 0.1},
    "ogg": {"format": "OGG", "subtype": "VORBIS", "compression_level": 0.2},
}
_LONGEST_ORIGIN, _LONGEST_NAME = 300, 200
"""Characters of a recording's tags that are kept."""
_TAGGED = (b"RIFF", b"fLaC", b"OggS", b"ID3", b"\xff")
"""How files of `AUDIO_FORMATS` begin."""
_CHANNELS = 2
_SAMPLE_BYTES = _CHANNELS * 4


@dataclass(frozen=True)
class AudioFile:
    """A written file; `gain_db` is at most 0: what its samples were attenuated by, so that no peak exceeds 1."""

    path: Path
    format: str
    n_samples: int
    sample_rate_hz: int
    peak: float
    gain_db: float
    comment: str
    signed: bool = False
    """A C2PA manifest is in it, or beside it as NAME.c2pa where the format has no place for one."""
    not_signed: str = ""
    """Why the signature failed that it was to have; "" if it is signed, and if it was not to be."""


def source_tags(data: bytes) -> Tags:
    """Return the tags of a recording that what is made from it keeps. Never raises.

    These are title and artist, without what terminals obey, and the comment if it says that the sound is AI-generated.
    """
    found = read_tags(data)
    comment = without_credits(found.comment)
    origin = comment[:_LONGEST_ORIGIN] if GENERATED in comment else ""
    return Tags(origin, _printable(found.title), _printable(found.artist))


def read_tags(data: bytes) -> Tags:
    """Return the tags of an encoded file, each in one line. Never raises."""
    if not data.startswith(_TAGGED):
        return Tags()
    mp3 = data.startswith((b"ID3", b"\xff"))
    try:
        with quiet_mpg123() if mp3 else nullcontext(), soundfile.SoundFile(ByteSource(data)) as file:
            return Tags(*(" ".join(text.split()) for text in (file.comment, file.title, file.artist)))
    except soundfile.SoundFileError:
        return Tags()


def _printable(text: str) -> str:
    return "".join(each for each in text if each.isprintable())[:_LONGEST_NAME]


def audio_format(path: str | Path) -> str:
    """Return the format of a file name's ending.

    Raises:
        InvalidRequestError: the ending is not one of `AUDIO_FORMATS`.
    """
    suffix = Path(path).suffix.lower().removeprefix(".")
    if suffix not in AUDIO_FORMATS:
        known = ", ".join(f".{name}" for name in AUDIO_FORMATS)
        raise InvalidRequestError(f"output: expected a name ending in {known}, got {str(path)!r}")
    return suffix


def write_audio(
    path: str | Path, audio: NDArray[Any], comment: str, *, sample_rate_hz: int = SAMPLE_RATE_HZ
) -> AudioFile:
    """Write `audio`, float [2, N], in one call; see `AudioWriter`."""
    with AudioWriter(path, sample_rate_hz=sample_rate_hz) as writer:
        writer.write(audio)
        return writer.commit(Tags(comment))


class AudioWriter:
    """Writes an audio file in chunks; the file appears under its name only on `commit`.

    Chunks go to an unnamed float32 file in the same folder, for two reasons: gain and comment are known only after the
    last chunk, and the system removes an unnamed file even if the process is killed. `commit` encodes to a hidden file
    and renames it. A song with a peak above 1 is attenuated as a whole, by exactly its peak.

    An existing file of that name is replaced.
    """

    def __init__(self, path: str | Path, *, sample_rate_hz: int = SAMPLE_RATE_HZ) -> None:
        self._format = audio_format(path)
        self._path = replaceable(path)
        self._spool = Spool(self._path.parent, self._path, sample_rate_hz)

    def write(self, audio: NDArray[Any]) -> None:
        """Append `audio`, float [2, N].

        Raises:
            InvalidRequestError: wrong shape, or NaN or infinite samples.
            OSError: the disk is full or failed.
        """
        self._spool.write(audio)

    def commit(self, tags: Tags, *, peak: float = 0.0) -> AudioFile:
        """Encode the samples with `tags`, and rename the file to its final name.

        A `peak` above the samples' own sets the attenuation, so that related files keep their relative levels.

        Raises:
            OSError: the file could not be written; an existing file of that name is unchanged.
        """
        with replacing(self._path) as file:
            written = self._spool.encode(file, self._path, self._format, max(peak, self._spool.peak), tags)
        self.close()
        return written

    def close(self) -> None:
        """Discard uncommitted samples."""
        self._spool.close()

    def __enter__(self) -> AudioWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Spool:
    """Stereo float32 samples in an unnamed file of `folder`; errors name the file `name`."""

    def __init__(self, folder: Path, name: Path, sample_rate_hz: int) -> None:
        self.peak = 0.0
        self.n_samples = 0
        self._name, self._sample_rate_hz = name, sample_rate_hz
        try:
            self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - close() closes it
        except OSError as error:
            raise _named(error, name) from error

    def write(self, audio: NDArray[Any]) -> None:
        """Append float [2, N]."""
        if audio.ndim != 2 or audio.shape[0] != _CHANNELS:
            raise InvalidRequestError(f"audio: expected [2, sample], got {list(audio.shape)}")
        samples = np.ascontiguousarray(audio.T, dtype="<f4")
        peak = float(np.abs(samples).max(initial=0.0))
        if not math.isfinite(peak):
            raise InvalidRequestError("audio: expected finite samples, got NaN or infinite ones")
        try:
            self._file.write(samples.data)
        except OSError as error:
            raise _named(error, self._name) from error
        self.peak = max(self.peak, peak)
        self.n_samples += audio.shape[1]

    def encode(self, file: IO[bytes], path: Path, file_format: str, peak: float, tags: Tags) -> AudioFile:
        """Encode all samples into `file`, attenuated if `peak` exceeds 1; errors name `path`."""
        divisor = max(peak, 1.0)
        try:
            self._file.flush()
            self._file.seek(0)
        except OSError as error:
            raise _named(error, path) from error
        head = id3_tag(tags) if file_format == "mp3" else b""
        file.write(head)
        sink = _Sink(file, len(head))
        # A thread: Ctrl-C must not interrupt libsndfile's callbacks, where cffi would print and drop it.
        with ThreadPoolExecutor(1) as pool:
            try:
                job = pool.submit(self._encode, sink, file_format, divisor, tags)
                while not job.done():
                    wait([job], timeout=0.1)  # bounded: a signal just before an unbounded wait would be delayed
                job.result()
            except BaseException:
                sink.stop()
                raise
        gain_db = 20 * math.log10(1.0 / divisor)
        return AudioFile(path, file_format, self.n_samples, self._sample_rate_hz, self.peak, gain_db, tags.comment)

    def _encode(self, sink: _Sink, file_format: str, divisor: float, tags: Tags) -> None:
        encoding = _ENCODING[file_format]
        try:
            with soundfile.SoundFile(sink, "w", self._sample_rate_hz, _CHANNELS, **encoding) as out:
                for name, text in asdict(tags).items():
                    if text and file_format != "mp3":  # whose are in front of it already
                        setattr(out, name, text)  # before the samples: only WAV accepts them afterwards
                # One second at a time: libvorbis puts a whole block on the stack.
                while block := self._file.read(self._sample_rate_hz * _SAMPLE_BYTES):
                    samples = np.frombuffer(block, "<f4").reshape(-1, _CHANNELS)
                    out.write(samples / np.float32(divisor) if divisor > 1.0 else samples)
                    sink.check()
        except (soundfile.SoundFileError, AssertionError):  # soundfile asserts that all samples were written
            sink.check()
            raise
        sink.check()

    def close(self) -> None:
        """Close and thereby delete the unnamed file."""
        self._file.close()


class _Sink:
    """A file for libsndfile that stores its errors, which cannot cross C callbacks.

    After an error or `stop` it leaves the file alone, so the caller can close it while the thread still runs.
    """

    def __init__(self, file: IO[bytes], start: int) -> None:
        """Present `file` from byte `start` on."""
        self._file, self._start = file, start
        self._error: BaseException | None = None
        self._lock = threading.Lock()

    def write(self, data: bytes) -> int:
        return self._keep(lambda: self._file.write(data))

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = self._start if whence == os.SEEK_SET else 0
        return self._keep(lambda: self._file.seek(base + offset, whence) - self._start)  # flushes a buffered file

    def tell(self) -> int:
        return self._keep(lambda: self._file.tell() - self._start)

    def _keep(self, call: Callable[[], int]) -> int:
        with self._lock:
            if self._error is None:
                try:
                    return call()
                except OSError as error:
                    self._error = error
        return 0

    def stop(self) -> None:
        """Ignore all further calls."""
        with self._lock:
            self._error = self._error or InterruptedError("stopped")

    def check(self) -> None:
        """Raise the stored error, if any."""
        if self._error is not None:
            raise self._error


def replaceable(path: str | Path) -> Path:
    """Resolve symbolic links of `path` and check that a file can be placed there.

    Raises:
        InvalidRequestError: the folder does not exist, or `path` exists and is not a regular file.
    """
    real = Path(os.path.realpath(path))
    if not real.parent.is_dir():
        raise InvalidRequestError(f"output: no such folder: {str(real.parent)!r}")
    if real.exists() and not real.is_file():
        raise InvalidRequestError(f"output: expected a file, got {str(path)!r}, which is something else")
    return real


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Yield a new file that replaces `path` if the block succeeds, and is deleted otherwise.

    Raises:
        OSError: the error names `path`.
    """
    with PartFile(path) as part:
        with part.filling() as file:
            yield file
        part.place()


class PartFile:
    """A hidden file that replaces `path` on `place`, and is deleted otherwise. Errors name `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")

    @contextmanager
    def filling(self) -> Iterator[IO[bytes]]:
        """Yield the open file; it is synced to disk when the block ends."""
        try:
            with self._part.open("x+b") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise _named(error, self.path) from error

    def filled(self) -> IO[bytes]:
        """Open what `filling` left, for reading."""
        return self._part.open("rb")

    def remove(self) -> None:
        """Delete the file, if it is still there."""
        with suppress(FileNotFoundError):
            self._part.unlink()

    def place(self) -> None:
        """Rename the file to `path`."""
        try:
            self._part.replace(self.path)
        except OSError as error:
            raise _named(error, self.path) from error

    def __enter__(self) -> PartFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()


def _named(error: OSError, path: Path) -> OSError:
    """Return the same error with the name of the final file."""
    return type(error)(error.errno, error.strerror or str(error), str(path))
