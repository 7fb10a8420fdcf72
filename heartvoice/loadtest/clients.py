"""Streams as their callers see them, one after the other or at random times, and what a player would make of them."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from heartvoice.client import AudioChunk, Client
from heartvoice.client.messages import Message, Report
from heartvoice.contracts.constants import SAMPLE_RATE_HZ
from heartvoice.errors import DeadlineError, HeartvoiceError, ModelUnavailableError

TIMEOUT_S = 300.0
"""A job that was accepted and is not done by then counts as late."""
Outcome = Literal["done", "refused", "late", "broken"]
OUTCOMES: tuple[Outcome, ...] = ("done", "refused", "late", "broken")
Make = Callable[[Client], Generator[Message, None, None]]
"""Begins a job."""
_REFUSAL = re.compile(r"\d+ jobs running and \d+ waiting, no room for more")


@dataclass(frozen=True)
class Playback:
    """What a player hears that begins with the first chunk and stops whenever it has nothing left."""

    underruns: int
    silence_s: float
    """Its stops in all."""
    buffer_s: float
    """How long it had to wait after the first chunk to never stop."""


@dataclass
class PlaybackStats:
    """One job. Times are seconds since it was sent."""

    outcome: Outcome = "broken"
    total_s: float = 0.0
    chunks: list[tuple[float, int]] = field(default_factory=list)
    """When each chunk came, and its samples."""
    timings: dict[str, Any] = field(default_factory=dict)
    """The server's, out of the report."""
    error: str = ""

    @property
    def first_s(self) -> float:
        """When the first audio came."""
        return self.chunks[0][0]

    @property
    def audio_s(self) -> float:
        """Audio received."""
        return sum(n for _, n in self.chunks) / SAMPLE_RATE_HZ

    @property
    def gaps_s(self) -> list[float]:
        """Between one chunk and the next."""
        times = [at for at, _ in self.chunks]
        return [later - earlier for earlier, later in pairwise(times)]

    @property
    def playback(self) -> Playback:
        """What a player at 48 kHz hears."""
        return play(self.chunks)


def play(chunks: Sequence[tuple[float, int]], sample_rate_hz: int = SAMPLE_RATE_HZ) -> Playback:
    """Play chunks (when, samples) as they come."""
    underruns, silence_s, buffer_s, had = 0, 0.0, 0.0, 0.0
    begin = chunks[0][0] if chunks else 0.0
    for at, n in chunks:
        late_s = at - begin - had
        buffer_s = max(buffer_s, late_s)
        if late_s > silence_s:
            underruns, silence_s = underruns + 1, late_s
        had += n / sample_rate_hz
    return Playback(underruns, silence_s, buffer_s)


def listen(client: Client, make: Make) -> PlaybackStats:
    """Make one job and note what happens; never raises for what the server does."""
    heard, began = PlaybackStats(), time.perf_counter()
    try:
        with closing(make(client)) as messages:
            for message in messages:
                if isinstance(message, AudioChunk):
                    heard.chunks.append((time.perf_counter() - began, message.length))
                elif isinstance(message, Report):
                    heard.timings = dict(message.timings)
        heard.outcome = "done"
    except HeartvoiceError as error:
        heard.outcome, heard.error = outcome(error), str(error)
    heard.total_s = time.perf_counter() - began
    return heard


def outcome(error: HeartvoiceError) -> Outcome:
    """A refusal names the numbers; any other end breaks the job, and too late is its own kind."""
    if isinstance(error, ModelUnavailableError) and _REFUSAL.search(str(error)):
        return "refused"
    return "late" if isinstance(error, DeadlineError) else "broken"


@contextmanager
def _pool(client: Client, size: int) -> Iterator[ThreadPoolExecutor]:
    """Threads whose jobs are cancelled if the block is left early."""
    pool = ThreadPoolExecutor(size, thread_name_prefix="bench-client")
    try:
        yield pool
    except BaseException:
        client.close()  # ends every call under way, here and on the server
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def closed_loop(client: Client, make: Make, concurrency: int, n: int) -> list[PlaybackStats]:
    """`n` jobs, always so many at once: the next begins when one ends."""
    with _pool(client, concurrency) as pool:
        return [future.result() for future in [pool.submit(listen, client, make) for _ in range(n)]]


def open_loop(client: Client, make: Make, rate_hz: float, seconds: float, seed: int) -> list[PlaybackStats]:
    """Jobs that begin at random times (Poisson), whatever becomes of those before; at least one."""
    random, at = np.random.default_rng(seed), 0.0
    began, stop = time.perf_counter(), threading.Event()
    futures: list[Future[PlaybackStats]] = []
    with _pool(client, max(8, round(4 * rate_hz * seconds))) as pool:
        while at < seconds or not futures:
            stop.wait(max(0.0, began + at - time.perf_counter()))
            futures.append(pool.submit(listen, client, make))
            at += float(random.exponential(1 / rate_hz))
        return [future.result() for future in futures]


def percentiles(name: str, seconds: Sequence[float], qs: Sequence[int] = (50, 90, 95, 99)) -> dict[str, Any]:
    """`{name}p50_ms` and so on; nothing of nothing."""
    return {f"{name}p{q}_ms": float(np.percentile(seconds, q)) * 1e3 for q in qs} if seconds else {}


def counts(heard: Sequence[PlaybackStats]) -> dict[str, Any]:
    """How many jobs ended how."""
    return {name: sum(each.outcome == name for each in heard) for name in OUTCOMES}


def errors(heard: Sequence[PlaybackStats]) -> list[str]:
    """What broke, each text once."""
    return sorted({each.error for each in heard if each.outcome in ("broken", "late")})


def done(heard: Sequence[PlaybackStats]) -> list[PlaybackStats]:
    """Those that were finished."""
    return [each for each in heard if each.outcome == "done"]
