"""The messages of a job: audio, codes, stems, progress and the report.

The pipelines yield them, the servers send each as one response, and the clients yield the same classes again.
"""

from __future__ import annotations

import base64
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from heartvoice.contracts.attribution import with_credits
from heartvoice.contracts.provenance import Tags, passthrough_provenance, provenance, stem_provenance
from heartvoice.errors import EngineError

Audio = NDArray[np.float32]
"""float32 [2, N], stereo: songs and what they are mixed of at 48 kHz, separated stems at 44.1 kHz."""
Codes = NDArray[np.int32]
"""int32 [8, T], one column a frame of 80 ms."""


class Chunk(ABC):
    """A stretch of a stream's payload: `length` samples or frames from `start` on."""

    output: ClassVar[str]
    """The contract's name of the payload."""
    start: int

    @property
    @abstractmethod
    def payload(self) -> NDArray[Any]:
        """The payload; chunks are concatenated along its last axis."""

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
    def payload(self) -> NDArray[Any]:
        """The audio."""
        return self.audio


@dataclass(frozen=True, eq=False)
class CodesChunk(Chunk):
    """A stretch of codes: `codes` int32 [8, T] (read-only), beginning at frame `start`."""

    output = "CODES"
    codes: Codes
    start: int

    @property
    def payload(self) -> NDArray[Any]:
        """The codes."""
        return self.codes


@dataclass(frozen=True, eq=False)
class StemsChunk(Chunk):
    """A stretch of all stems: `stems` float32 [S, 2, N] (read-only), beginning at sample `start`.

    A separation has S sources at 44.1 kHz, in the order that its report names. A song or cover with `stems` has S = 2
    at 48 kHz, in the order of `contracts.MIX_STEM_NAMES`. Their sum is the audio of the same samples before its
    watermark, if the server writes one; chunks of stems and of audio may begin and end at different samples.
    """

    output = "STEMS"
    stems: NDArray[np.float32]
    start: int

    @property
    def payload(self) -> NDArray[Any]:
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
    """The report on a finished song or cover; `raw` is the whole JSON object.

    Attributes:
        recorded: true for a cover. If nothing was converted, its audio is a recording and not AI-generated.
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
            EngineError: not an object, or `seed`, `preset` or `random_weights` is missing or of another type.
        """
        fields = _fields(raw, seed=int, preset=str, random_weights=bool)
        return cls(fields["seed"], fields["preset"], fields["random_weights"], fields.get("timings", {}), fields)

    @classmethod
    def from_raw_voice(cls, raw: object, *, recorded: bool) -> Report:
        """Read the report of a cover (`recorded`) or of a song with a voice.

        Raises:
            EngineError: as `from_raw`, and if `converted` or `warnings` is missing or of another type.
        """
        fields = _fields(raw, converted=bool, warnings=list)
        for name in ("similarity", "f0", "pitch"):
            if not isinstance(fields.get(name, {}), dict):
                raise EngineError(f"REPORT: {name}: expected an object, got {fields[name]!r}")
        return replace(cls.from_raw(raw), recorded=recorded)

    @property
    def attempts(self) -> int:
        """How often the client sent the request: more than 1 if a server was busy, or a process died."""
        return int(self.raw.get("attempts", 1))

    def with_attempts(self, n: int) -> Report:
        """The same report of a job that took `n` attempts."""
        return replace(self, raw={**self.raw, "attempts": n})

    @property
    def converted(self) -> bool | None:
        """True if the singer was replaced. None for a song without a voice."""
        return self.raw.get("converted")

    @property
    def warnings(self) -> tuple[str, ...]:
        """Possible faults of the recording or the voice."""
        return report_warnings(self.raw)

    @property
    def unknown_words(self) -> Mapping[str, str]:
        """Words of the lyrics that the model does not know, as written, with what is sung instead; "" if nothing is.

        Empty if it knows them all, and if its vocabulary is open.
        """
        return dict(self.raw.get("unknown_words", {}))

    @property
    def networks(self) -> Mapping[str, str]:
        """The origin of the weights of each network that the job ran; `random seed=N` for random ones."""
        return dict(self.raw.get("networks", {}))

    @property
    def similarity(self) -> Mapping[str, Any]:
        """The encoder, and the cosines to the voice `before` and `after` conversion.

        Empty for a song without a voice; a cosine is None where there is too little singing.
        """
        return dict(self.raw.get("similarity", {}))

    @property
    def f0(self) -> Mapping[str, Any]:
        """Measured pitch: source_median_hz, result_median_hz, voice_median_hz, and change_semitones; each may be None.

        `change_semitones` is the ratio of result and source, `measured_on` names the signals. What the converter was
        told to do is in `pitch`. Empty for a song without a voice.
        """
        return dict(self.raw.get("f0", {}))

    @property
    def pitch(self) -> Mapping[str, Any]:
        """What the converter did: auto_pitch, does, shift_semitones, auto_shift_semitones, keeps_key.

        `does` is the mode in words. A `live` conversion whose shift moved has all its shifts in `shifts_semitones`.
        Empty for a song without a voice.
        """
        return dict(self.raw.get("pitch", {}))

    @property
    def comment(self) -> str:
        """The comment tag of this song's files."""
        return self.tags(Tags()).comment

    @property
    def signed(self) -> bool:
        """True if the server signed the file of `render`; streams have no place for a signature."""
        return self.raw.get("signed") is True

    @property
    def manifest(self) -> bytes:
        """The manifest of an OGG that the server signed, which belongs beside it as NAME.c2pa; b"" of others.

        Raises:
            EngineError: the server sent something else than base64.
        """
        try:
            return base64.b64decode(self.raw.get("manifest", ""), validate=True)
        except (TypeError, ValueError) as error:
            raise EngineError(f"REPORT: manifest: expected base64: {error}") from error

    @property
    def attribution(self) -> str:
        """Text ready to publish: what was generated, by which models under which licences, and whose voice."""
        return str(self.raw.get("attribution", ""))

    def tags(self, source: Tags) -> Tags:
        """The tags of this song's files; those of a cover keep title and artist of its `source`."""
        return replace(source, comment=with_credits(self._mark(source.comment), self.attribution))

    def _mark(self, origin: str) -> str:
        if self.converted is False and self.recorded:
            return passthrough_provenance(origin=origin)
        return provenance(self.seed, random_weights=self.random_weights)

    def stem_tags(self, stem: str, source: Tags) -> Tags:
        """The tags of one stem's file."""
        mark = stem_provenance(stem, random_weights=self.random_weights, origin=self._mark(source.comment))
        return replace(source, comment=with_credits(mark, self.attribution))


@dataclass(frozen=True)
class StemsReport:
    """The report on a finished separation; `raw` is the whole JSON object."""

    sources: tuple[str, ...]
    preset: str
    random_weights: bool
    timings: Mapping[str, Any]
    raw: Mapping[str, Any]

    @classmethod
    def from_raw(cls, raw: object) -> StemsReport:
        """Read a report's JSON value.

        Raises:
            EngineError: not an object, or a field is missing, of another type, or not a valid file name.
        """
        fields = _fields(raw, sources=list, preset=str, random_weights=bool)
        sources = fields["sources"]
        if not sources or not all(isinstance(name, str) and _SOURCE.fullmatch(name) for name in sources):
            raise EngineError(f"REPORT: sources: expected names, got {sources!r}")
        if len(set(sources)) < len(sources):
            raise EngineError(f"REPORT: sources: expected each name once, got {sources!r}")
        return cls(tuple(sources), fields["preset"], fields["random_weights"], fields.get("timings", {}), fields)

    @property
    def attempts(self) -> int:
        """As of `Report`."""
        return int(self.raw.get("attempts", 1))

    def with_attempts(self, n: int) -> StemsReport:
        """The same report of a job that took `n` attempts."""
        return replace(self, raw={**self.raw, "attempts": n})

    @property
    def warnings(self) -> tuple[str, ...]:
        """Possible faults of the recording."""
        return report_warnings(self.raw)

    @property
    def networks(self) -> Mapping[str, str]:
        """As of `Report`."""
        return dict(self.raw.get("networks", {}))

    @property
    def attribution(self) -> str:
        """As of `Report`."""
        return str(self.raw.get("attribution", ""))

    def stem_tags(self, stem: str, source: Tags) -> Tags:
        """The tags of a stem's file: title and artist are the recording's, `source`'s comment its origin."""
        mark = stem_provenance(stem, random_weights=self.random_weights, origin=source.comment)
        return replace(source, comment=with_credits(mark, self.attribution))


def report_warnings(raw: Mapping[str, Any]) -> tuple[str, ...]:
    """The warnings of a report."""
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


Message = AudioChunk | CodesChunk | StemsChunk | Event | Report
"""The messages of a song or a cover."""
StemsMessage = StemsChunk | Event | StemsReport
"""The messages of a separation."""
