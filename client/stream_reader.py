"""Reads a stream: checks the order of its messages, its silence and its end."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from heartvoice.client import wire
from heartvoice.client.deadlines import ProgressWatch
from heartvoice.client.messages import Chunk, Event, ForgetReport, Report, StemsReport
from heartvoice.client.resumption import Resumption
from heartvoice.errors import EngineError

DRAIN_TIMEOUT_S, DRAIN_IDLE_S = 2.0, 0.15
"""A stream that is left before its end is read for so long at most before it is cancelled, and until such a pause:
Triton never frees what a cancelled stream had not sent (2.51), up to 92 MB for a song that was played as it came."""
M = TypeVar("M")


class StreamReader(Generic[M]):
    """One try of a stream, checked: no gap, the report once and last, then the final response."""

    def __init__(self, spec: wire.StreamSpec[M], resumption: Resumption[M], *, events: bool = True) -> None:
        """Begin a try.

        Args:
            spec: of the stream.
            resumption: what the tries before have delivered.
            events: false drops events.
        """
        self._spec, self._events, self._resumption = spec, events, resumption
        resumption.begin()
        self._name = spec.model.name
        self.received = False
        """True if the server has answered with anything but a refusal."""
        self._progress = ProgressWatch(self._name)
        self._next = dict.fromkeys(spec.payloads, 0)
        self._main = next(iter(spec.payloads), "")
        self._sizes: dict[str, tuple[int, ...]] = {}
        self._reported = False
        self._final = False

    def feed(self, response: Any) -> list[M]:
        """What the next response has that was not delivered by a try before.

        Raises:
            DeadlineError: the job makes no progress.
            HeartvoiceError: the server's error, or an EngineError if the stream breaks the contract.
        """
        messages, final = wire.decode_stream(response, self._spec)
        self.received = True
        self._progress.look(messages)
        if self._final:
            raise EngineError(f"{self._name}: got a response after the final one")
        for message in messages:
            self._check(message)
        self._final = final
        wanted = (message for message in messages if self._events or not isinstance(message, Event))
        return [new for message in wanted if (new := self._resumption.new(message)) is not None]

    def _check(self, message: M) -> None:
        if self._reported:
            raise EngineError(f"{self._name}: got {type(message).__name__} after the report")
        if isinstance(message, Chunk):
            self._advance(message)
        elif isinstance(message, Report | StemsReport):
            self._reported = True
            self._check_report(message)
        elif isinstance(message, ForgetReport):
            self._reported = True

    def _advance(self, chunk: Chunk) -> None:
        name, sizes = chunk.output, chunk.payload.shape[:-1]
        if chunk.start != self._next[name]:
            raise EngineError(f"{name}: expected the chunk that begins at {self._next[name]}, got START {chunk.start}")
        if self._sizes.setdefault(name, sizes) != sizes:
            raise EngineError(f"{name}: expected {list(self._sizes[name])} as before, got {list(sizes)}")
        self._next[name] += chunk.length

    def _check_report(self, report: Report | StemsReport) -> None:
        facts = {"samples": self._next[self._main], "sample_rate_hz": self._spec.sample_rate_hz}
        for name, fact in facts.items():
            if report.raw.get(name, fact) != fact:
                got = f"the report says {report.raw[name]} {name}"
                raise EngineError(f"{self._name}: {got}, got {fact}")
        for name in self._spec.parallel:
            if self._next[name] != self._next[self._main]:
                expected = f"{self._next[self._main]} samples in all, as of {self._main}"
                raise EngineError(f"{name}: expected {expected}, got {self._next[name]}")
        if isinstance(report, StemsReport) and self._sizes:
            n_stems = self._sizes[self._main][0]
            if len(report.sources) != n_stems:
                raise EngineError(f"{self._name}: the report names {len(report.sources)} sources, got {n_stems} stems")

    def finish(self) -> None:
        """Call at the stream's end.

        Raises:
            EngineError: it ended early.
        """
        got = self._next.get(self._main, 0)
        needed = {name.lower(): got for name in (self._main,) if name}
        needed |= {"report": self._reported, "final response": self._final}
        missing = [name for name, present in needed.items() if not present]
        if missing:
            ended = f"the stream ended after {got} samples without its {' and '.join(missing)}"
            raise EngineError(f"{self._name}: {ended}")


class StallGuard:
    """Ends a blocking read that gets nothing for `limit_s`; the time between reads is the caller's and not counted."""

    def __init__(self, cancel: Callable[[], object], limit_s: float) -> None:
        self.stalled = False
        self._cancel, self._limit_s = cancel, limit_s
        self._since: float | None = None
        self._closed = threading.Event()
        if math.isfinite(limit_s):
            threading.Thread(target=self._watch, name="heartvoice-stall", daemon=True).start()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """The block waits for the server."""
        self._since = time.monotonic()
        try:
            yield
        finally:
            self._since = None

    def close(self) -> None:
        """End the watch."""
        self._closed.set()

    def _watch(self) -> None:
        while not self._closed.wait(min(1.0, self._limit_s / 4)):
            since = self._since
            if since is not None and time.monotonic() - since > self._limit_s:
                self.stalled = True
                self._cancel()
                return
