"""What comes back from a client: frozen values, no I/O but `save`."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from heartvoice.audio.encode import AudioFile, AudioWriter, passthrough_provenance, provenance, stem_provenance
from heartvoice.client.stem_files import StemsWriter
from heartvoice.contracts.constants import SAMPLE_RATE_HZ
from heartvoice.errors import EngineError, InvalidRequestError

DEFAULT_URL = "127.0.0.1:8001"
DEFAULT_STALL_TIMEOUT_S = 20.0
DEFAULT_TIMEOUT_S = 600.0
Array = NDArray[Any]
Audio = NDArray[np.float32]
"""float32 [2, N], stereo: songs and what they are mixed of at 48 kHz, separated stems at 44.1 kHz."""
Codes = NDArray[np.int32]
"""int32 [8, T], one column a frame of 80 ms."""


class Chunk(ABC):
    """A stretch of a stream's payload: `length` samples or frames, the first of them at `start`."""

    output: ClassVar[str]
    """The contract's name of the payload."""
    start: int

    @property
    @abstractmethod
    def payload(self) -> Array:
        """The array; its last axis is the one that goes on."""

    @property
    def length(self) -> int:
        """Samples or frames."""
        return int(self.payload.shape[-1])


@dataclass(frozen=True, eq=False)
class AudioChunk(Chunk):
    """A stretch of the song: `audio` float32 [2, N] (read-only, may exceed 1), beginning at sample `start`."""

    output = "AUDIO"
    audio: Audio
    start: int

    @property
    def payload(self) -> Array:
        """The audio."""
        return self.audio


@dataclass(frozen=True, eq=False)
class CodesChunk(Chunk):
    """A stretch of codes: `codes` int32 [8, T] (read-only), beginning at frame `start`."""

    output = "CODES"
    codes: Codes
    start: int

    @property
    def payload(self) -> Array:
        """The codes."""
        return self.codes


@dataclass(frozen=True, eq=False)
class StemsChunk(Chunk):
    """A stretch of all stems: `stems` float32 [S, 2, N] (read-only), beginning at sample `start`.

    Of a separation at 44.1 kHz, the S sources in the order that the report at the end names. Of a song or cover with
    `stems` at 48 kHz, S = 2, in the order of `contracts.MIX_STEM_NAMES`; together they are the audio of the same
    samples, which may be cut elsewhere.
    """

    output = "STEMS"
    stems: NDArray[np.float32]
    start: int

    @property
    def payload(self) -> Array:
        """The stems."""
        return self.stems


@dataclass(frozen=True)
class Event:
    """Progress: `done` of at most `total` frames of a stage, `seconds` after the job began."""

    stage: str
    done: int
    total: int
    seconds: float


@dataclass(frozen=True)
class Report:
    """What the server says about a finished song or cover; `raw` is the whole JSON object.

    Attributes:
        recorded: whether it is of a cover: what was not converted is then someone's recording, not AI-generated.
    """

    seed: int
    preset: str
    random_weights: bool
    timings: Mapping[str, Any]
    raw: Mapping[str, Any]
    recorded: bool = False

    @classmethod
    def from_raw(cls, raw: object) -> Report:
        """Read a report's JSON value.

        Raises:
            EngineError: it is no object, or `seed`, `preset` or `random_weights` is missing or of another type.
        """
        fields = _fields(raw, seed=int, preset=str, random_weights=bool)
        return cls(fields["seed"], fields["preset"], fields["random_weights"], fields.get("timings", {}), fields)

    @classmethod
    def from_raw_voice(cls, raw: object, *, recorded: bool) -> Report:
        """Read that of a cover (`recorded`) or of a song with a voice: it also has `converted` and `warnings`.

        Raises:
            EngineError: as `from_raw`, and if `converted` or `warnings` is missing or of another type.
        """
        fields = _fields(raw, converted=bool, warnings=list)
        for name in ("similarity", "f0"):
            if not isinstance(fields.get(name, {}), dict):
                raise EngineError(f"REPORT: {name}: expected an object, got {fields[name]!r}")
        return replace(cls.from_raw(raw), recorded=recorded)

    @property
    def converted(self) -> bool | None:
        """Whether the singer was replaced; if not, the singing is as it was. None of a song without a voice."""
        return self.raw.get("converted")

    @property
    def warnings(self) -> tuple[str, ...]:
        """What may be wrong with the recording or the voice."""
        return _warnings(self.raw)

    @property
    def similarity(self) -> Mapping[str, Any]:
        """With a voice: encoder, and the cosine to the voice `before` and `after`, None where too little is sung."""
        return dict(self.raw.get("similarity", {}))

    @property
    def f0(self) -> Mapping[str, Any]:
        """With a voice: source_median_hz, result_median_hz, voice_median_hz and shift_semitones, or None each."""
        return dict(self.raw.get("f0", {}))

    @property
    def comment(self) -> str:
        """The tag that files of this song carry."""
        return self.comment_from("")

    def comment_from(self, origin: str) -> str:
        """The same of what was made from a recording whose own tag is `origin`."""
        if self.converted is False and self.recorded:
            return passthrough_provenance(origin=origin)
        voice = None if self.converted is False else self.raw.get("voice_sha256")
        return provenance(self.seed, random_weights=self.random_weights, voice_sha256=voice)

    def stem_comment(self, stem: str, origin: str = "") -> str:
        """The tag of a stem's file: what it is a part of."""
        return stem_provenance(stem, random_weights=self.random_weights, origin=self.comment_from(origin))


@dataclass(frozen=True)
class StemsReport:
    """What the server says about a finished separation; `raw` is the whole JSON object."""

    sources: tuple[str, ...]
    preset: str
    random_weights: bool
    timings: Mapping[str, Any]
    raw: Mapping[str, Any]

    @classmethod
    def from_raw(cls, raw: object) -> StemsReport:
        """Read a report's JSON value.

        Raises:
            EngineError: it is no object, or a field is missing, of another type, or no name that a file could have.
        """
        fields = _fields(raw, sources=list, preset=str, random_weights=bool)
        sources = fields["sources"]
        if not sources or not all(isinstance(name, str) and _SOURCE.fullmatch(name) for name in sources):
            raise EngineError(f"REPORT: sources: expected names, got {sources!r}")
        if len(set(sources)) < len(sources):
            raise EngineError(f"REPORT: sources: expected each name once, got {sources!r}")
        return cls(tuple(sources), fields["preset"], fields["random_weights"], fields.get("timings", {}), fields)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What may be wrong with the recording."""
        return _warnings(self.raw)

    def comment(self, source: str, origin: str = "") -> str:
        """The tag of a stem's file; `origin` is the recording's own tag if that was AI-generated."""
        return stem_provenance(source, random_weights=self.random_weights, origin=origin)


def _warnings(raw: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(warning) for warning in raw.get("warnings", ()))


_SOURCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")


def _fields(raw: object, **kinds: type) -> dict[str, Any]:
    """A report as a dict that has these fields and an object `timings`."""
    if not isinstance(raw, dict):
        raise EngineError(f"REPORT: expected a JSON object, got {type(raw).__name__}")
    for name, kind in kinds.items():
        if type(raw.get(name)) is not kind:
            raise EngineError(f"REPORT: {name}: expected {kind.__name__}, got {raw.get(name)!r}")
    timings = raw.get("timings", {})
    if not isinstance(timings, dict):
        raise EngineError(f"REPORT: timings: expected an object, got {timings!r}")
    return raw


@dataclass(frozen=True, eq=False)
class Song:
    """A finished song or cover.

    Attributes:
        audio: float32 [2, N] as the server sent it; values may exceed 1.
        timings: `ttfa_s` (request sent to first audio received), `total_s`, and the server's own under `server`.
        codes: int32 [8, T] if `return_codes` was set.
        origin: the tag of the recording that a cover was made from, if that was AI-generated already.
        stems: if `stems` was set, float32 [2, N] under each of `contracts.MIX_STEM_NAMES`; together they are `audio`.
    """

    audio: Audio
    report: Report
    timings: Mapping[str, Any]
    codes: Codes | None = None
    sample_rate_hz: int = SAMPLE_RATE_HZ
    origin: str = ""
    stems: Mapping[str, Audio] | None = None

    @property
    def seed(self) -> int:
        """The seed that makes this song again."""
        return self.report.seed

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.audio.shape[1] / self.sample_rate_hz

    def save(self, path: str | Path) -> AudioFile:
        """Write a .wav, .flac, .mp3 or .ogg file whose comment says that it is AI-generated, and how.

        The comment of a cover that was not converted says that instead. A song that exceeds 1 is turned down as a
        whole, never clipped; the returned `gain_db` says by how much. If a stem exceeds 1, the song is turned down as
        `save_stems` turns its stems down, so that their files still add up to this one.

        Raises:
            InvalidRequestError: the name ends in something else, or is no place for a file.
            OSError: the file could not be written; nothing is left behind.
        """
        with AudioWriter(path, sample_rate_hz=self.sample_rate_hz) as writer:
            writer.write(self.audio)
            return writer.commit(self.report.comment_from(self.origin), peak=self._peak)

    def save_stems(self, folder: str | Path, file_format: str = "wav") -> dict[str, AudioFile]:
        """Write FOLDER/STEM.FORMAT for both stems, or none, with the gain that `save` has.

        The folder is made if only its parent exists. The comments say which song these are parts of.

        Raises:
            InvalidRequestError: there are no stems, no such format, or `folder` is no place for a folder.
            OSError: a file could not be written; none is left behind.
        """
        if self.stems is None:
            raise InvalidRequestError("stems: expected a song that was asked for with stems=True, got one without")
        with StemsWriter(folder, file_format=file_format, sample_rate_hz=self.sample_rate_hz) as writer:
            writer.write(list(self.stems.values()))
            comments = {name: self.report.stem_comment(name, self.origin) for name in self.stems}
            return writer.commit(comments, peak=self._peak)

    @property
    def _peak(self) -> float:
        """The loudest sample of the song and its stems."""
        parts = [self.audio, *(self.stems or {}).values()]
        return max(float(np.abs(part).max(initial=0.0)) for part in parts)


@dataclass(frozen=True, eq=False)
class Embedding:
    """Who speaks or sings.

    Attributes:
        vector: float32 [D] of length 1, so that a dot product is a cosine.
        encoder: which network made it; vectors of different ones cannot be compared.
        seconds: duration of the recording.
        raw: the server's whole report.
    """

    vector: NDArray[np.float32]
    encoder: str
    seconds: float
    raw: Mapping[str, Any] = field(default_factory=dict)

    @property
    def random_weights(self) -> bool:
        """Whether the encoder's weights are random, so that cosines say nothing."""
        return bool(self.raw.get("random_weights", False))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What may be wrong with the recording."""
        return _warnings(self.raw)

    def cosine(self, other: Embedding) -> float:
        """Likeness to another voice, in [-1, 1].

        Raises:
            InvalidRequestError: another encoder made it.
        """
        if (self.encoder, self.vector.shape) != (other.encoder, other.vector.shape):
            got = f"{self.encoder} {list(self.vector.shape)} and {other.encoder} {list(other.vector.shape)}"
            raise InvalidRequestError(f"embeddings: expected two of the same encoder, got {got}")
        return float(np.clip(np.dot(self.vector.astype(np.float64), other.vector), -1.0, 1.0))


Message = AudioChunk | CodesChunk | StemsChunk | Event | Report
"""What `stream` and `stream_cover` yield."""
StemsMessage = StemsChunk | Event | StemsReport
"""What `stream_stems` yields."""
