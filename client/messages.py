"""What a caller hands to a client and what comes back: frozen values, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heartvoice.audio_files import AudioFile, provenance, write_audio
from heartvoice.contracts import SAMPLE_RATE_HZ
from heartvoice.errors import EngineError, InvalidRequestError

DEFAULT_URL = "127.0.0.1:8001"
DEFAULT_STALL_TIMEOUT_S = 20.0
DEFAULT_TIMEOUT_S = 600.0
SettingValue = float | int | bool | np.generic
"""A setting's value: a Python or numpy scalar."""
Array = NDArray[Any]
Audio = NDArray[np.float32]
"""float32 [2, N], 48 kHz stereo."""
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
class AudioChunk:
    """A stretch of the song: `audio` float32 [2, N] (read-only, may exceed 1), beginning at sample `start`."""

    audio: Audio
    start: int


@dataclass(frozen=True, eq=False)
class CodesChunk:
    """A stretch of codes: `codes` int32 [8, T] (read-only), beginning at frame `start`."""

    codes: Codes
    start: int


@dataclass(frozen=True)
class Event:
    """Progress: `done` of at most `total` frames of a stage, `seconds` after the job began."""

    stage: str
    done: int
    total: int
    seconds: float


@dataclass(frozen=True)
class Report:
    """What the server says about a finished song; `raw` is the whole JSON object."""

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
        if not isinstance(raw, dict):
            raise EngineError(f"REPORT: expected a JSON object, got {type(raw).__name__}")
        for name, kind in (("seed", int), ("preset", str), ("random_weights", bool)):
            if type(raw.get(name)) is not kind:
                raise EngineError(f"REPORT: {name}: expected {kind.__name__}, got {raw.get(name)!r}")
        timings = raw.get("timings", {})
        if not isinstance(timings, dict):
            raise EngineError(f"REPORT: timings: expected an object, got {timings!r}")
        return cls(raw["seed"], raw["preset"], raw["random_weights"], timings, raw)

    @property
    def comment(self) -> str:
        """The tag that files of this song carry."""
        voice = self.raw.get("voice_sha256")
        return provenance(self.seed, random_weights=self.random_weights, voice_sha256=voice)


@dataclass(frozen=True, eq=False)
class Song:
    """A finished song.

    Attributes:
        audio: float32 [2, N] as the server sent it; values may exceed 1.
        timings: `ttfa_s` (request sent to first audio received), `total_s`, and the server's own under `server`.
        codes: int32 [8, T] if `return_codes` was set.
    """

    audio: Audio
    report: Report
    timings: Mapping[str, Any]
    codes: Codes | None = None
    sample_rate_hz: int = SAMPLE_RATE_HZ

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

        A song that exceeds 1 is turned down as a whole, never clipped; the returned `gain_db` says by how much.

        Raises:
            InvalidRequestError: the name ends in something else, or is no place for a file.
            OSError: the file could not be written; nothing is left behind.
        """
        return write_audio(path, self.audio, self.report.comment, sample_rate_hz=self.sample_rate_hz)


Message = AudioChunk | CodesChunk | Event | Report
"""What `stream` yields."""
