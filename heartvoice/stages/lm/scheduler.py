"""Continuous batching: songs join and leave an engine between frames.

Every turn admits at most one song, whose prompt is fed by itself, and then makes one frame of all songs. A new song
delays the others by one prompt at most. A cancelled song leaves before the frame after the next.

Source: continuous batching after Yu et al., "Orca: A distributed serving system for transformer-based generative
models", OSDI 2022, section 3.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from heartvoice.errors import (
    DeadlineError,
    EngineError,
    HeartvoiceError,
    InvalidRequestError,
    ModelUnavailableError,
    RequestCancelledError,
)
from heartvoice.redaction import traceback_without_messages
from heartvoice.stages.lm.engine import Codes, LmEngine
from heartvoice.stages.lm.song_state import SongState

log = logging.getLogger(__name__)

ALIVE_POLL_S = 1.0
"""Interval at which a waiting consumer checks that the scheduler is alive."""

Timed = Literal["queue", "first_frame", "prefill", "step"]
"""Names of timings: request to slot, request to first frame, one prompt, one frame of all songs."""


class LmObserver(Protocol):
    """Callbacks of the scheduler's thread. `flush` is called before a song's end reaches its consumer."""

    def timed(self, what: Timed, seconds: float) -> None:
        """`what` took `seconds`."""

    def frames_made(self, count: int) -> None:
        """`count` more frames were made."""

    def occupied(self, *, slots: int, rows: int, waiting: int) -> None:
        """Occupied slots and rows of the engine, and waiting songs."""

    def flush(self, *, immediate: bool) -> None:
        """A turn has ended. If `immediate`, a song has ended, and all values have to be reported now."""


class NullObserver:
    """An `LmObserver` that ignores all calls."""

    def timed(self, what: Timed, seconds: float) -> None:
        """Ignored."""

    def frames_made(self, count: int) -> None:
        """Ignored."""

    def occupied(self, *, slots: int, rows: int, waiting: int) -> None:
        """Ignored."""

    def flush(self, *, immediate: bool) -> None:
        """Ignored."""


class SongStream:
    """A submitted song, for one consumer: iterate over its frames, int32 [8] each.

    Unread frames are queued here, 32 bytes of codes each, so that the scheduler never waits. As a context manager it
    cancels the rest of the song.
    """

    def __init__(self, song: SongState, cancelled: Callable[[], bool], timeout_s: float | None) -> None:
        self.song = song
        self.submitted = time.monotonic()
        self.queue_s = 0.0
        """Seconds from submission to slot."""
        self.thread: threading.Thread | None = None
        """The scheduler's."""
        self._timeout_s = timeout_s
        self._cancelled = cancelled
        self._closed = False
        self._ended = False
        self._arrivals: queue.SimpleQueue[NDArray[np.int32] | HeartvoiceError | None] = queue.SimpleQueue()

    @property
    def age_s(self) -> float:
        """Seconds since the song was submitted."""
        return time.monotonic() - self.submitted

    def __iter__(self) -> Iterator[NDArray[np.int32]]:
        """Frames as they are made.

        Raises:
            RequestCancelledError: the song was cancelled.
            DeadlineError: its time ran out.
            EngineError: the engine failed.
        """
        while not self._ended:
            item = self._next()
            if isinstance(item, HeartvoiceError):
                raise item
            if item is not None:
                yield item

    def _next(self) -> NDArray[np.int32] | HeartvoiceError | None:
        while True:
            try:
                item = self._arrivals.get(timeout=ALIVE_POLL_S)
            except queue.Empty:
                if self.thread is not None and self.thread.is_alive():
                    continue
                item = EngineError("heartmula: the scheduler has ended")
            self._ended = not isinstance(item, np.ndarray)
            return item

    def put(self, item: NDArray[np.int32] | HeartvoiceError | None) -> None:
        """Queue a frame, an error, or None for the end. For the scheduler."""
        self._arrivals.put(item)

    def why_end(self) -> HeartvoiceError | None:
        """The reason to end the song early, if there is one. For the scheduler."""
        progress = f"after {self.song.n_made} of {self.song.request.n_frames} frames"
        if self._closed or self._cancelled():
            return RequestCancelledError(f"heartmula: cancelled {progress}")
        if self._timeout_s is not None and self.age_s > self._timeout_s:
            return DeadlineError(f"heartmula: {self._timeout_s:g} s ran out {progress}")
        return None

    def __enter__(self) -> SongStream:
        """The stream itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Cancel the song unless it has ended, and wait until the scheduler has dropped it."""
        self._closed = True
        while not self._ended:
            self._next()


class LmScheduler:
    """Runs songs in an engine's slots in one thread, first come, first served."""

    def __init__(self, engine: LmEngine, *, max_waiting: int, observer: LmObserver | None = None) -> None:
        """Start the thread.

        Args:
            engine: only the scheduler's thread uses it from now on.
            max_waiting: songs that may wait for a slot.
            observer: gets the metrics.
        """
        self._engine, self._max_waiting, self._observer = engine, max_waiting, observer or NullObserver()
        self._waiting: deque[SongStream] = deque()
        self._running: dict[int, SongStream] = {}
        self._stopping = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="lm-scheduler", daemon=True)
        self._thread.start()

    def submit(
        self, song: SongState, cancelled: Callable[[], bool] = lambda: False, *, timeout_s: float | None = None
    ) -> SongStream:
        """Queue a song.

        Args:
            song: checked.
            cancelled: called between frames in the scheduler's thread; true ends the song.
            timeout_s: seconds from now after which an incomplete song ends with an error.

        Raises:
            InvalidRequestError: the song's keys and values exceed the engine's memory.
            ModelUnavailableError: as many songs as allowed are running and waiting.
        """
        need, limit = self._engine.kv_bytes([song.prompt]), self._engine.kv_limit
        if need > limit:
            raise InvalidRequestError(
                f"duration_s: {song.prompt.n_rows} rows of {song.prompt.n_positions} positions need "
                f"{need / 1e6:.1f} MB of keys and values, the limit is {limit / 1e6:.1f} MB; "
                "shorten the lyrics or the song"
            )
        stream = SongStream(song, cancelled, timeout_s)
        stream.thread = self._thread
        with self._changed:
            if self._stopping:
                raise ModelUnavailableError("heartmula: stopping, no new songs")
            if len(self._running) + len(self._waiting) >= self._engine.n_slots + self._max_waiting:
                raise ModelUnavailableError(
                    f"heartmula: {len(self._running)} songs running and {len(self._waiting)} waiting, "
                    "no room for more; try again later"
                )
            self._waiting.append(stream)
            self._changed.notify()
        return stream

    def close(self) -> None:
        """Cancel all songs and end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    # ------------------------------------------------------------------------------------- the scheduler's own thread

    def _run(self) -> None:
        try:
            while self._has_work():
                self._end_unwanted()
                self._admit()
                self._step()
        finally:
            self._stopping = True
            for stream in [*self._running.values(), *self._waiting]:
                stream.put(RequestCancelledError("heartmula: stopping"))

    def _has_work(self) -> bool:
        """Wait for a song; false if the scheduler stops."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or self._waiting or self._running)
            return not self._stopping

    def _end_unwanted(self) -> None:
        for slot, stream in list(self._running.items()):
            error = stream.why_end()
            if error is not None:
                self._leave(slot)
                self._tell(stream, error)
        with self._changed:
            unwanted = [(stream, error) for stream in self._waiting if (error := stream.why_end()) is not None]
            for stream, _ in unwanted:
                self._waiting.remove(stream)
        for stream, error in unwanted:
            self._tell(stream, error)

    def _admit(self) -> None:
        """Admit the first song of the queue if there is a slot and memory for it. No song overtakes it."""
        free = set(range(self._engine.n_slots)) - self._running.keys()
        with self._changed:
            if not self._waiting or not free:
                return
            stream = self._waiting[0]
            songs = [running.song.prompt for running in (*self._running.values(), stream)]
            if self._engine.kv_bytes(songs) > self._engine.kv_limit:
                return
            # Under the lock, so that `submit` always counts the song in one of the two.
            self._waiting.popleft()
            self._running[slot := min(free)] = stream
        stream.queue_s = stream.age_s
        self._observer.timed("queue", stream.queue_s)
        began = time.monotonic()
        try:
            ids = self._engine.prefill(slot, stream.song.prompt, stream.song.next_input())
        except Exception as error:
            del self._running[slot]
            self._tell(stream, _failure("prompt", error))
            return
        self._observer.timed("prefill", time.monotonic() - began)
        self._observer.timed("first_frame", stream.age_s)
        self._deliver({slot: ids})

    def _step(self) -> None:
        """Make one frame of every song."""
        if not self._running:
            return
        began = time.monotonic()
        try:
            inputs = {
                slot: stream.song.next_input(self._engine.pending(slot)) for slot, stream in self._running.items()
            }
            made = self._engine.step(inputs)
        except Exception as error:
            for slot, stream in list(self._running.items()):
                self._leave(slot)
                self._tell(stream, _failure("frame", error))
            return
        self._observer.timed("step", time.monotonic() - began)
        self._deliver(made)

    def _deliver(self, made: Mapping[int, Codes]) -> None:
        """Hand out frames. A finished song has left and was reported before its consumer gets the end."""
        streams = {slot: self._running[slot] for slot in made}
        frames: dict[int, NDArray[np.int32] | None] = {}
        for slot, stream in list(streams.items()):
            try:
                frames[slot] = stream.song.accept(made[slot])
            except EngineError as error:  # this song's alone: its neighbours' ids are theirs
                log.error("%s", error)
                del streams[slot]
                self._leave(slot)
                self._tell(stream, error)
        finished = [slot for slot, stream in streams.items() if stream.song.finished]
        for slot in finished:
            self._leave(slot)
        self._observer.frames_made(sum(frame is not None for frame in frames.values()))
        self._report(immediate=bool(finished))
        for slot, stream in streams.items():
            frame = frames[slot]
            if frame is not None:
                stream.put(frame)
            if stream.song.finished:
                stream.put(None)

    def _leave(self, slot: int) -> None:
        self._engine.release(slot)
        del self._running[slot]

    def _tell(self, stream: SongStream, error: HeartvoiceError) -> None:
        self._report(immediate=True)
        stream.put(error)

    def _report(self, *, immediate: bool) -> None:
        rows = sum(stream.song.prompt.n_rows for stream in self._running.values())
        self._observer.occupied(slots=len(self._running), rows=rows, waiting=len(self._waiting))
        self._observer.flush(immediate=immediate)


def _failure(what: str, cause: Exception) -> HeartvoiceError:
    """A separate exception for each song, because each is raised in its own thread."""
    log.error("the engine failed at a %s, %s", what, traceback_without_messages(cause))
    error = EngineError(f"heartmula: the engine failed at a {what}: {cause}")
    error.__cause__ = cause
    return error
