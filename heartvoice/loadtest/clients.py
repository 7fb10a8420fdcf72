"""Measures streams as a client receives them, in closed or open loop, and simulates a player."""

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
"""Limit of a job; an accepted job that takes longer counts as late."""
Outcome = Literal["done", "refused", "late", "broken"]
OUTCOMES: tuple[Outcome, ...] = ("done", "refused", "late", "broken")
Make = Callable[[Client], Generator[Message, None, None]]
"""Starts a job and yields its messages."""
_REFUSAL = re.compile(r"\d+ jobs running and \d+ waiting, no room for more")


@dataclass(frozen=True)
class Playback:
    """Simulated player that starts with the first chunk and stops while its buffer is empty."""

    underruns: int
    silence_s: float
    """Total length of the stops."""
    buffer_s: float
    """Initial delay after the first chunk with which playback would never stop."""


@dataclass
class PlaybackStats:
    """Measurements of one job; times are seconds since the request."""

    outcome: Outcome = "broken"
    total_s: float = 0.0
    chunks: list[tuple[float, int]] = field(default_factory=list)
    """Time of arrival and samples of each chunk."""
    timings: dict[str, Any] = field(default_factory=dict)
    """Timings of the server, from its report."""
    error: str = ""

    @property
    def first_s(self) -> float:
        """Time of the first audio."""
        return self.chunks[0][0]

    @property
    def audio_s(self) -> float:
        """Seconds of audio received."""
        return sum(n for _, n in self.chunks) / SAMPLE_RATE_HZ

    @property
    def gaps_s(self) -> list[float]:
        """Times between consecutive chunks."""
        times = [at for at, _ in self.chunks]
        return [later - earlier for earlier, later in pairwise(times)]

    @property
    def playback(self) -> Playback:
        """Simulated playback at 48 kHz."""
        return play(self.chunks)


def play(chunks: Sequence[tuple[float, int]], sample_rate_hz: int = SAMPLE_RATE_HZ) -> Playback:
    """Simulate the playback of chunks (time, samples) as they arrive."""
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
    """Run one job and measure it; failures of the server are recorded, not raised."""
    stats, began = PlaybackStats(), time.perf_counter()
    try:
        with closing(make(client)) as messages:
            for message in messages:
                if isinstance(message, AudioChunk):
                    stats.chunks.append((time.perf_counter() - began, message.length))
                elif isinstance(message, Report):
                    stats.timings = dict(message.timings)
        stats.outcome = "done"
    except HeartvoiceError as error:
        stats.outcome, stats.error = outcome(error), str(error)
    stats.total_s = time.perf_counter() - began
    return stats


def outcome(error: HeartvoiceError) -> Outcome:
    """Classify an error: a refusal that states its numbers, late, or broken."""
    if isinstance(error, ModelUnavailableError) and _REFUSAL.search(str(error)):
        return "refused"
    return "late" if isinstance(error, DeadlineError) else "broken"


@contextmanager
def _pool(client: Client, size: int) -> Iterator[ThreadPoolExecutor]:
    """Yield a thread pool whose jobs are cancelled if the block raises."""
    pool = ThreadPoolExecutor(size, thread_name_prefix="bench-client")
    try:
        yield pool
    except BaseException:
        client.close()  # ends all running calls, on client and server
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def closed_loop(client: Client, make: Make, concurrency: int, n: int) -> list[PlaybackStats]:
    """Run `n` jobs at a constant concurrency: each end starts the next job."""
    with _pool(client, concurrency) as pool:
        return [future.result() for future in [pool.submit(listen, client, make) for _ in range(n)]]


def open_loop(client: Client, make: Make, rate_hz: float, seconds: float, seed: int) -> list[PlaybackStats]:
    """Start jobs at random times (Poisson), independently of earlier ones; at least one."""
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
    """Return `{name}p50_ms` etc.; empty without values."""
    return {f"{name}p{q}_ms": float(np.percentile(seconds, q)) * 1e3 for q in qs} if seconds else {}


def counts(stats: Sequence[PlaybackStats]) -> dict[str, Any]:
    """Count the jobs by outcome."""
    return {name: sum(each.outcome == name for each in stats) for name in OUTCOMES}


def errors(stats: Sequence[PlaybackStats]) -> list[str]:
    """Return the distinct errors of failed jobs."""
    return sorted({each.error for each in stats if each.outcome in ("broken", "late")})


def done(stats: Sequence[PlaybackStats]) -> list[PlaybackStats]:
    """Return the finished jobs."""
    return [each for each in stats if each.outcome == "done"]
