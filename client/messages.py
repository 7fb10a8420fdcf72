"""What a caller hands to a client and what comes back: frozen values, no I/O."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from heartvoice.audio_files import AudioFile, passthrough_provenance, provenance, stem_provenance, write_audio
from heartvoice.client.recordings import COVER_LIMITS_S, VOICE_LIMITS_S, Recording, RecordingLike, as_recording
from heartvoice.contracts import SAMPLE_RATE_HZ
from heartvoice.errors import EngineError, InvalidRequestError

DEFAULT_URL = "127.0.0.1:8001"
DEFAULT_STALL_TIMEOUT_S = 20.0
DEFAULT_TIMEOUT_S = 600.0
SettingValue = float | int | bool | np.generic
"""A setting's value: a Python or numpy scalar."""
Array = NDArray[Any]
Audio = NDArray[np.float32]
"""float32 [2, N], stereo: songs at 48 kHz, stems at 44.1 kHz."""
Codes = NDArray[np.int32]
"""int32 [8, T], one column a frame of 80 ms."""


@dataclass(frozen=True, eq=False)
class SongRequest:
    """A song to be made. What is None or missing takes the server's default.

    Attributes:
        lyrics: text; section marks such as [verse] are plain text.
        tags: text, comma separated: genre, mood, instruments.
        settings: by the names of `contracts.SONG.settings`, ranges as there.
        style: float32 [D], HeartMuLa's style slot.
        codes: int32 [8, T] of a finished song, which is then decoded again instead of being written anew.
    """

    lyrics: str = ""
    tags: str = ""
    settings: Mapping[str, SettingValue | None] = field(default_factory=dict)
    style: Array | None = None
    codes: Array | None = None

    def __post_init__(self) -> None:
        given = {name: value for name, value in self.settings.items() if value is not None}
        object.__setattr__(self, "settings", MappingProxyType(given))


def as_request(
    lyrics: str | SongRequest,
    tags: str,
    style: Array | None,
    codes: Array | None,
    settings: Mapping[str, SettingValue | None],
) -> SongRequest:
    """One request out of a client method's arguments; a `SongRequest` in the first place stands alone.

    Raises:
        InvalidRequestError: a `SongRequest` and other arguments were given together.
    """
    if not isinstance(lyrics, SongRequest):
        return SongRequest(lyrics, tags, settings, style, codes)
    if tags or settings or style is not None or codes is not None:
        raise InvalidRequestError("request: expected a SongRequest alone, got further song arguments beside it")
    return lyrics


@dataclass(frozen=True, eq=False)
class CoverRequest:
    """A cover to be made. What is None or missing takes the server's default.

    Attributes:
        recording: the song; its singer is replaced.
        voice: a reference of 3 to 60 s of the voice that shall sing.
        consent: who consents to the use of the voice, and how.
        no_vocals: what a recording without vocals becomes, one of `contracts.NO_VOCALS_MODES`.
        settings: by the names of `contracts.COVER.settings`, ranges as there.
    """

    recording: Recording
    voice: Recording
    consent: str
    no_vocals: str | None = None
    settings: Mapping[str, SettingValue | None] = field(default_factory=dict)


def as_cover(
    recording: RecordingLike,
    voice: RecordingLike,
    consent: str,
    no_vocals: str | None,
    settings: Mapping[str, SettingValue | None],
) -> CoverRequest:
    """A request out of a client method's arguments.

    Raises:
        InvalidRequestError: the recording or the voice is none; the rest is checked when the request is encoded.
    """
    return CoverRequest(
        as_recording(recording, limits_s=COVER_LIMITS_S),
        as_recording(voice, field="voice", limits_s=VOICE_LIMITS_S),
        consent,
        no_vocals,
        settings,
    )


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
    """A stretch of all stems: `stems` float32 [S, 2, N] (read-only) at 44.1 kHz, beginning at sample `start`.

    The report at the end names the S sources in their order.
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
    """What the server says about a finished song or cover; `raw` is the whole JSON object."""

    seed: int
    preset: str
    random_weights: bool
    timings: Mapping[str, Any]
    raw: Mapping[str, Any]

    @classmethod
    def from_raw(cls, raw: object) -> Report:
        """Read a report's JSON value.

        Raises:
            EngineError: it is no object, or `seed`, `preset` or `random_weights` is missing or of another type.
        """
        fields = _fields(raw, seed=int, preset=str, random_weights=bool)
        return cls(fields["seed"], fields["preset"], fields["random_weights"], fields.get("timings", {}), fields)

    @classmethod
    def from_raw_cover(cls, raw: object) -> Report:
        """Read a cover's, which also says whether it was converted and lists warnings.

        Raises:
            EngineError: as `from_raw`, and if `converted` or `warnings` is missing or of another type.
        """
        fields = _fields(raw, converted=bool, warnings=list)
        for name in ("similarity", "f0"):
            if not isinstance(fields.get(name, {}), dict):
                raise EngineError(f"REPORT: {name}: expected an object, got {fields[name]!r}")
        return cls.from_raw(raw)

    @property
    def converted(self) -> bool | None:
        """Of a cover: whether the singer was replaced; if not, the audio is the recording's own. None of a song."""
        return self.raw.get("converted")

    @property
    def warnings(self) -> tuple[str, ...]:
        """What may be wrong with the recording or the voice."""
        return _warnings(self.raw)

    @property
    def similarity(self) -> Mapping[str, Any]:
        """Of a cover: encoder, and the cosine to the voice `before` and `after`, None where too little is sung."""
        return dict(self.raw.get("similarity", {}))

    @property
    def f0(self) -> Mapping[str, Any]:
        """Of a cover: source_median_hz, result_median_hz, voice_median_hz and shift_semitones, or None each."""
        return dict(self.raw.get("f0", {}))

    @property
    def comment(self) -> str:
        """The tag that files of this song carry."""
        return self.comment_from("")

    def comment_from(self, origin: str) -> str:
        """The same of what was made from a recording whose own tag is `origin`."""
        if self.converted is False:
            return passthrough_provenance(origin=origin)
        voice = self.raw.get("voice_sha256")
        return provenance(self.seed, random_weights=self.random_weights, voice_sha256=voice)


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
    """

    audio: Audio
    report: Report
    timings: Mapping[str, Any]
    codes: Codes | None = None
    sample_rate_hz: int = SAMPLE_RATE_HZ
    origin: str = ""

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
        whole, never clipped; the returned `gain_db` says by how much.

        Raises:
            InvalidRequestError: the name ends in something else, or is no place for a file.
            OSError: the file could not be written; nothing is left behind.
        """
        comment = self.report.comment_from(self.origin)
        return write_audio(path, self.audio, comment, sample_rate_hz=self.sample_rate_hz)


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


Message = AudioChunk | CodesChunk | Event | Report
"""What `stream` and `stream_cover` yield."""
StemsMessage = StemsChunk | Event | StemsReport
"""What `stream_stems` yields."""
