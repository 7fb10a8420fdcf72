"""Jobs for fault tests: their results alone, and during faults of other jobs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from heartvoice import shm_regions
from heartvoice.client import Client
from heartvoice.contracts.constants import STEM_RATE_HZ
from heartvoice.errors import HeartvoiceError, ModelUnavailableError
from heartvoice.server.server import EmbeddedServer
from heartvoice.server.workarounds import orphaned_stubs
from tests.support import music
from tests.support.waiting import wait_until

CONSENT = "me, here"
TIMEOUT_S = 60.0
HANG_S = 5.0
"""Hang limit of the shared server; shorter than the default, to keep the tests fast."""
SONG_S, COVER_S = 30.0, 8.0
_BUSY_NS = 2_000_000
"""Processor time within a few milliseconds that marks a busy process; an idle one only polls."""


def song(client: Client, seed: int = 0, **settings: float) -> np.ndarray:
    """Return the samples of a song."""
    words: dict[str, object] = {"duration_s": SONG_S, "min_duration_s": SONG_S, "codec_window": 93, **settings}
    return client.song(lyrics="la la la", seed=seed, timeout_s=TIMEOUT_S, **words).audio  # type: ignore[arg-type]


def render(client: Client, seed: int = 0) -> np.ndarray:
    """Return the bytes of a rendered song."""
    data, _ = client.render(
        lyrics="la la la", seed=seed, duration_s=120.0, min_duration_s=120.0, timeout_s=10.0, file_format="flac"
    )
    return np.frombuffer(data, np.uint8)


def cover(client: Client, seed: int = 0, seconds: float = COVER_S) -> np.ndarray:
    """Return the samples of a cover; every seed has a different voice, so none is cached."""
    recording = (music.song(seconds)[0], STEM_RATE_HZ)
    voice = (music.singer(4.0, STEM_RATE_HZ, seed=100 + seed)[None], STEM_RATE_HZ)
    made = client.cover(recording, voice, consent=CONSENT, svc_steps=2, live=True, timeout_s=TIMEOUT_S)
    return made.audio


JOBS: dict[str, Callable[[Client, int], np.ndarray]] = {"song": song, "cover": cover, "render": render}


@dataclass
class Running:
    """A job in a separate thread."""

    job: Callable[[], np.ndarray]
    made: np.ndarray | None = None
    error: HeartvoiceError | None = None
    ended_at: float = 0.0
    _thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            self.made = self.job()
        except HeartvoiceError as error:
            self.error = error
        self.ended_at = time.monotonic()

    def ended(self) -> bool:
        """True if there is a result or an error."""
        return not self._thread.is_alive()

    def wait(self) -> Running:
        """Wait until the job has ended."""
        self._thread.join(TIMEOUT_S + 30)
        assert self.ended(), "the job hangs: neither result nor error"
        return self

    @property
    def samples(self) -> np.ndarray:
        """Result of the job."""
        assert self.made is not None, self.error
        return self.made


def recovery_s(job: Callable[[], object], fell: float, within_s: float = 60.0) -> float:
    """Return the seconds from the fault to the start of the first successful job."""
    while True:
        began = time.monotonic()
        try:
            job()
            return began - fell
        except ModelUnavailableError:
            if time.monotonic() - fell > within_s:
                raise
            time.sleep(0.1)


def _cpu_ns(pid: int) -> int:
    total = 0
    for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        try:
            total += int(task.read_text().split()[0])
        except (OSError, IndexError):
            continue  # the thread has ended
    return total


def wait_until_busy(pid: int, given_up: Callable[[], bool]) -> bool:
    """Wait until a process is busy; return False if `given_up` came first."""
    before = _cpu_ns(pid)
    while not given_up():
        time.sleep(0.003)
        now = _cpu_ns(pid)
        if now - before > _BUSY_NS:
            return True
        before = now
    return False


def left_behind(server: EmbeddedServer) -> list[str]:
    """List leaked processes, shared memory, files and jobs of a running server."""
    assert server._run is not None
    prefix, n = shm_regions.shm_prefix(server._owner, server._run), len(server.models)

    def surplus() -> list[str]:
        run = server._run
        assert run is not None
        found = []
        stubs = len({pid for pid, region in orphaned_stubs.stubs() if region.startswith(prefix)})
        regions = len(list(shm_regions.SHM.glob(f"{prefix}*")))
        if stubs > n:
            found.append(f"{stubs - n} processes")
        if regions > n:
            found.append(f"{regions - n} shared-memory regions")
        found += [str(path) for path in run.glob("scratch/*/*")]
        if server.live_jobs():
            found.append(f"{server.live_jobs()} jobs")
        return found

    try:
        wait_until(lambda: not surplus(), 60.0, "something is left")
    except AssertionError:
        return surplus()
    return []
