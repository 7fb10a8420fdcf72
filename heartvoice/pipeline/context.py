"""The context of one job: cancellation, progress, timings and report, shared by all of its pipelines."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from heartvoice import __version__
from heartvoice.contracts.attribution import COVER, SONG, attribution
from heartvoice.contracts.messages import AudioChunk, Event, Message, Report
from heartvoice.pipeline.prefetch import Prefetcher
from heartvoice.runtime.networks import Check, never_cancelled

if TYPE_CHECKING:
    from heartvoice.pipeline.watermarking import Watermark

T = TypeVar("T")


class JobContext:
    """The state that all pipelines of one job share. Safe for threads.

    Attributes:
        check: raises RequestCancelledError if the job was cancelled. Pipelines call it between messages and while
            they wait.
        timings: seconds by name, for the report.
        report: the report's other fields. Each pipeline adds its own at its end.
        watermark: what the server marks songs with; None if it does not.
    """

    def __init__(
        self, about: Mapping[str, Any], check: Check = never_cancelled, watermark: Watermark | None = None
    ) -> None:
        """Start the job's clock.

        Args:
            about: the networks' fields of the report: preset, precision, weights, networks, random_weights.
            check: see the class.
            watermark: likewise.
        """
        self.check, self.watermark = check, watermark
        self.timings: dict[str, float] = {}
        self.report: dict[str, Any] = {"heartvoice": __version__, **about}
        self._began = time.monotonic()
        self._first_audio_s: float | None = None
        self._posted: queue.SimpleQueue[Message] = queue.SimpleQueue()

    def seconds(self) -> float:
        """Seconds since the job began, to four digits."""
        return round(time.monotonic() - self._began, 4)

    def event(self, stage: str, done: int, n_frames: int) -> Event:
        """A progress event, stamped with the time.

        Args:
            stage: the stage's name.
            done: frames that it has finished.
            n_frames: frames that are expected in all; a stage that exceeds them raises the total.
        """
        return Event(stage, done, max(done, n_frames), self.seconds())

    # ------------------------------------------------------------------------------------------------------ threads

    def prefetch(self, source: Callable[[], Iterable[T]], *, name: str, max_ahead: int = 0) -> Prefetcher[T]:
        """A `Prefetcher` whose consumer stops when the job is cancelled."""
        return Prefetcher(source, name=name, max_ahead=max_ahead, check=self.check)

    def post(self, message: Message) -> None:
        """Leave a message for the thread that yields the job's messages."""
        self._posted.put(message)

    def posted(self) -> Iterator[Message]:
        """Take the messages that other threads have posted so far."""
        while not self._posted.empty():
            yield self._posted.get()

    # ------------------------------------------------------------------------------------------------------ timings

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the seconds that a block takes to the timing `name`."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.timings[name] = self.timings.get(name, 0.0) + time.monotonic() - began

    def timed_items(self, name: str, items: Iterable[T]) -> Iterator[T]:
        """Yield the items, and add the seconds that they take to make to the timing `name`."""
        iterator = iter(items)
        while True:
            with self.timed(name):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    # ------------------------------------------------------------------------------------------------------- report

    def deliver(
        self, messages: Generator[Message, None, None], *, recorded: bool = False
    ) -> Generator[Message, None, None]:
        """Yield the messages of the job's outermost pipeline, and the report at the end.

        Args:
            messages: of the pipeline. The first audio among them is timed.
            recorded: the job was given a recording.
        """
        with closing(messages):
            for message in messages:
                if self._first_audio_s is None and isinstance(message, AudioChunk):
                    self._first_audio_s = self.seconds()
                yield message
        yield self._finished(recorded)

    def _finished(self, recorded: bool) -> Report:
        timings = {
            **{name: round(seconds, 4) for name, seconds in self.timings.items()},
            "first_audio_s": self._first_audio_s,
            "total_s": self.seconds(),
        }
        text = attribution(self.report, COVER if recorded else SONG)
        # A stream of samples has no place for a manifest.
        raw = {**self.report, "attribution": text, "signed": False, "timings": timings}
        return replace(Report.from_raw(raw), recorded=recorded)
