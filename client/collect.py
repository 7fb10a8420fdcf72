"""A stream's messages into the result of a whole call, with its timings."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import numpy as np

from heartvoice.client.messages import (
    AudioChunk,
    Chunk,
    CodesChunk,
    Message,
    Report,
    Song,
    StemsChunk,
    StemsMessage,
    StemsReport,
)
from heartvoice.client.recordings import Recording
from heartvoice.client.stems import Stems
from heartvoice.contracts.claims import NO_SOURCE
from heartvoice.contracts.constants import MIX_STEM_NAMES

R = TypeVar("R", Report, StemsReport)


class Collector(Generic[R]):
    """The clock and the report, which songs and stems share."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.report: R | None = None
        self._clock = clock
        self._began = clock()
        self._first_s: float | None = None
        self._chunks: list[Any] = []

    @property
    def elapsed_s(self) -> float:
        """Seconds since the collector was made, which is when the request is sent."""
        return self._clock() - self._began

    def _take(self, chunk: Chunk, keep: bool) -> None:
        if self._first_s is None:
            self._first_s = self.elapsed_s
        if keep:
            self._chunks.append(chunk.payload)

    def finish(self) -> tuple[R, dict[str, Any]]:
        """The report and the timings: `ttfa_s`, `total_s`, and the server's under `server`."""
        assert self.report is not None, "StreamReader lets no stream end without a report"
        assert self._first_s is not None, "StreamReader lets no stream end without audio"
        timings = {"ttfa_s": self._first_s, "total_s": self.elapsed_s, "server": dict(self.report.timings)}
        return self.report, timings


class SongCollector(Collector[Report]):
    """A stream's messages into timings and, unless the audio goes elsewhere, a `Song`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self._codes: list[Any] = []
        self._stems: list[Any] = []

    def add(self, message: Message, *, keep_audio: bool = True) -> None:
        """Take the next message; `keep_audio` is off where chunks are written out as they come."""
        if isinstance(message, AudioChunk):
            self._take(message, keep_audio)
        elif isinstance(message, StemsChunk) and keep_audio:
            self._stems.append(message.stems)
        elif isinstance(message, CodesChunk):
            self._codes.append(message.codes)
        elif isinstance(message, Report):
            self.report = message

    @property
    def codes(self) -> Any:
        """int32 [8, T], or None if none came."""
        return np.concatenate(self._codes, axis=1) if self._codes else None

    def song(self, source: Recording | None = None) -> Song:
        """The finished song, made from this recording if there is one."""
        report, timings = self.finish()
        audio = np.concatenate(self._chunks, axis=1)
        stems = dict(zip(MIX_STEM_NAMES, np.concatenate(self._stems, axis=2), strict=True)) if self._stems else None
        made_from = NO_SOURCE if source is None else source.source
        return Song(audio, report, timings, self.codes, stems=stems, source=made_from)


class StemsCollector(Collector[StemsReport]):
    """The same for `Stems`."""

    def add(self, message: StemsMessage, *, keep_audio: bool = True) -> None:
        """Take the next message."""
        if isinstance(message, StemsChunk):
            self._take(message, keep_audio)
        elif isinstance(message, StemsReport):
            self.report = message

    def stems(self, source: Recording) -> Stems:
        """The finished stems of a recording."""
        report, timings = self.finish()
        stems = {
            source: np.concatenate([chunk[index] for chunk in self._chunks], axis=1)
            for index, source in enumerate(report.sources)
        }
        return Stems(stems, report, timings, source.source)
