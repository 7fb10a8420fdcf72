"""Songs that share an engine: order, limits, cancellation, slow consumers, and codes that depend on none of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pytest

from heartvoice.errors import (
    DeadlineError,
    EngineError,
    InvalidRequestError,
    ModelUnavailableError,
    RequestCancelledError,
)
from heartvoice.stages.lm.engine import Codes, FrameInput, LmEngine, SongPrompt
from heartvoice.stages.lm.scheduler import LmScheduler, SongStream, Timed
from heartvoice.stages.lm.song_state import SongState
from tests.fakes.networks import BytesTokenizer
from tests.support.lm_songs import PRESET, REQUESTS, CountingEngine, codes_alone, graph_engine, song
from tests.support.waiting import wait_until

LONG = 2000
"""Frames of a song that is not over before it is cancelled."""
Start = Callable[..., LmScheduler]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start schedulers, and end them with the test."""
    started: list[LmScheduler] = []

    def begin(engine: LmEngine, max_waiting: int = 16, observer: object = None) -> LmScheduler:
        started.append(LmScheduler(engine, max_waiting=max_waiting, observer=observer))  # type: ignore[arg-type]
        return started[-1]

    yield begin
    for scheduler in started:
        scheduler.close()


class GatedEngine(CountingEngine):
    """Makes a frame, or takes a prompt in, for each permit."""

    def __init__(self, n_slots: int = 4, kv_limit: int = 10**9) -> None:
        super().__init__(n_slots, kv_limit)
        self.permits = threading.Semaphore(0)
        self.opened = False

    def prefill(self, slot: int, prompt: SongPrompt, frame: FrameInput) -> Codes:
        assert self.opened or self.permits.acquire(timeout=30)
        return super().prefill(slot, prompt, frame)

    def pending(self, slot: int) -> int:
        return 0

    def step(self, frames: Mapping[int, FrameInput]) -> dict[int, Codes]:
        assert self.opened or self.permits.acquire(timeout=30)
        return super().step(frames)

    def open(self) -> None:
        """No more permits are needed."""
        self.opened = True
        self.permits.release()


def read(stream: SongStream) -> np.ndarray:
    """All frames, [T, 8]."""
    return np.stack(list(stream))


def test_a_song_is_complete_and_in_order(start: Start) -> None:
    codes = read(start(CountingEngine()).submit(song(9)))
    assert codes.dtype == np.int32
    assert codes[:, 1].tolist() == list(range(1, 10))


def test_songs_come_one_between_two_frames_and_first_come_first_served(start: Start) -> None:
    engine = GatedEngine(n_slots=3)
    scheduler = start(engine)
    streams = [scheduler.submit(song(6, lyrics="x" * n)) for n in (1, 2, 3, 4, 5)]
    engine.open()
    lengths = [len(stream.song.prompt.text_ids) for stream in streams]
    assert [read(stream)[0, 0] for stream in streams] == lengths
    assert engine.log[:6] == ["prefill", "step", "prefill", "step", "prefill", "step"]
    assert all(pair != ("prefill", "prefill") for pair in zip(engine.log, engine.log[1:], strict=False))
    assert engine.admitted == lengths


def test_one_stalled_consumer_among_eight_delays_nobody(start: Start) -> None:
    engine = GatedEngine(n_slots=8)
    scheduler = start(engine)
    streams = [scheduler.submit(song(50, seed=n)) for n in range(8)]
    stalled = streams[3]
    engine.open()
    assert [len(read(stream)) for stream in streams if stream is not stalled] == [50] * 7
    wait_until(lambda: not engine.prompts, 60.0, "the unread song is still in its slot")
    assert len(read(scheduler.submit(song(3)))) == 3  # its slot serves others
    assert len(read(stalled)) == 50


def test_cancelled_song_is_gone_within_two_frames(start: Start) -> None:
    engine = GatedEngine(n_slots=2)
    scheduler = start(engine)
    cancelled = threading.Event()
    stream, other = scheduler.submit(song(LONG), cancelled.is_set), scheduler.submit(song(LONG))
    engine.permits.release(5)
    frames = iter(stream)
    for _ in range(3):
        next(frames)
    wait_until(lambda: len(engine.log) == 5, 60.0, "frames are missing")
    cancelled.set()
    engine.permits.release(2)
    wait_until(lambda: len(engine.prompts) == 1, 60.0, "the cancelled song is still there")
    with pytest.raises(RequestCancelledError, match=rf"cancelled after \d of {LONG} frames"):
        list(frames)
    assert stream.song.n_made <= 6
    engine.open()
    assert next(iter(other)) is not None


def test_leaving_a_stream_early_frees_its_slot(start: Start) -> None:
    engine = CountingEngine()
    with start(engine).submit(song(LONG)) as stream:
        next(iter(stream))
    assert not engine.prompts
    assert stream.song.n_made < LONG


def test_waiting_song_can_be_cancelled_and_the_next_one_moves_up(start: Start) -> None:
    engine = GatedEngine(n_slots=1)
    scheduler = start(engine)
    gone = threading.Event()
    first, second, third = (scheduler.submit(song(8), event) for event in (lambda: False, gone.is_set, lambda: False))
    gone.set()
    engine.open()
    with pytest.raises(RequestCancelledError, match="after 0 of 8 frames"):
        list(second)
    assert [len(read(first)), len(read(third))] == [8, 8]
    assert engine.log.count("prefill") == 2


def test_deadlines_end_running_and_waiting_songs(start: Start) -> None:
    engine = GatedEngine(n_slots=1)
    scheduler = start(engine)
    running, waiting = (scheduler.submit(song(LONG), timeout_s=0.05) for _ in range(2))
    engine.permits.release(4)
    time.sleep(0.06)
    engine.open()
    for stream in (running, waiting):
        with pytest.raises(DeadlineError, match=rf"0.05 s ran out after \d of {LONG} frames"):
            list(stream)


def test_more_songs_than_slots_and_queue_are_refused_with_the_numbers(start: Start) -> None:
    engine = GatedEngine(n_slots=2)
    scheduler = start(engine, max_waiting=3)
    streams = [scheduler.submit(song(4)) for _ in range(5)]
    with pytest.raises(ModelUnavailableError, match=r"\d songs running and \d waiting, no room for more"):
        scheduler.submit(song(4))
    engine.open()
    assert [len(read(stream)) for stream in streams] == [4] * 5
    assert len(read(scheduler.submit(song(4)))) == 4


def test_song_beyond_the_memory_is_refused_with_the_numbers(start: Start) -> None:
    engine = graph_engine(n_slots=2, kv_limit=1_000_000)
    with pytest.raises(
        InvalidRequestError,
        match=r"duration_s: 2 rows of 10\d\d positions need \d\.\d MB of keys and values, the limit is 1\.0 MB",
    ):
        start(engine).submit(song(1000))


def test_songs_wait_for_memory_in_their_order(start: Start) -> None:
    small, big = song(5, cfg_scale=1.0), song(60)
    engine = GatedEngine(n_slots=4, kv_limit=CountingEngine().kv_bytes([big.prompt]))
    scheduler = start(engine)
    late = song(5, cfg_scale=1.0, lyrics="la")
    streams = [scheduler.submit(wanted) for wanted in (small, big, late)]
    engine.open()
    assert [len(read(stream)) for stream in streams] == [5, 60, 5]  # the engine asserts that all fit
    assert engine.admitted == [len(wanted.prompt.text_ids) for wanted in (small, big, late)]


def test_a_failing_frame_fails_its_songs_and_no_later_one(start: Start) -> None:
    class Failing(GatedEngine):
        failing = True

        def step(self, frames: Mapping[int, FrameInput]) -> dict[int, Codes]:
            if self.failing and len(frames) == 2:
                raise RuntimeError("out of memory")
            return super().step(frames)

    engine = Failing()
    scheduler = start(engine)
    streams = [scheduler.submit(song(LONG)) for _ in range(2)]
    engine.open()
    for stream in streams:
        with pytest.raises(EngineError, match="failed at a frame: out of memory"):
            list(stream)
    assert not engine.prompts
    engine.failing = False
    assert len(read(scheduler.submit(song(4)))) == 4


def test_a_failing_prompt_fails_its_song_alone(start: Start) -> None:
    class Failing(GatedEngine):
        def prefill(self, slot: int, prompt: SongPrompt, frame: FrameInput) -> Codes:
            if prompt.top_k == 13:
                raise RuntimeError("unlucky")
            return super().prefill(slot, prompt, frame)

    engine = Failing()
    scheduler = start(engine)
    good, bad = scheduler.submit(song(6)), scheduler.submit(song(6, top_k=13))
    engine.open()
    with pytest.raises(EngineError, match="failed at a prompt: unlucky"):
        list(bad)
    assert len(read(good)) == 6


@pytest.mark.parametrize("frame", [1, 3])
def test_a_song_of_no_codes_fails_alone(start: Start, frame: int) -> None:
    """The first frame comes with the prompt, a later one with those of the neighbours."""

    class Broken(GatedEngine):
        def _codes(self, slot: int) -> Codes:
            codes = super()._codes(slot)
            broken = self.prompts[slot].top_k == 13 and self.made[slot] == frame
            return np.full(8, -1) if broken else codes

    engine = Broken(n_slots=2)
    scheduler = start(engine)
    good, bad = scheduler.submit(song(6)), scheduler.submit(song(LONG, top_k=13))
    engine.open()
    with pytest.raises(EngineError, match=f"heartmula: frame {frame - 1}: the network's logits are not finite"):
        list(bad)
    assert len(read(good)) == 6
    assert not engine.prompts


def test_closing_ends_everything(start: Start) -> None:
    scheduler = start(CountingEngine(n_slots=1))
    streams = [scheduler.submit(song(LONG)) for _ in range(2)]
    next(iter(streams[0]))
    scheduler.close()
    for stream in streams:
        with pytest.raises(RequestCancelledError, match="stopping"):
            list(stream)
    with pytest.raises(ModelUnavailableError, match="stopping"):
        scheduler.submit(song())


class Notes:
    """An observer that keeps everything, and how many songs had ended when it was last asked to settle at once."""

    def __init__(self) -> None:
        self.seconds: dict[Timed, list[float]] = {"queue": [], "first_frame": [], "prefill": [], "step": []}
        self.frames, self.busiest, self.now = 0, (0, 0, 0), (0, 0, 0)
        self.settled: tuple[int, tuple[int, int, int]] = (0, (0, 0, 0))

    def timed(self, what: Timed, seconds: float) -> None:
        self.seconds[what].append(seconds)

    def frames_made(self, count: int) -> None:
        self.frames += count

    def occupied(self, *, slots: int, rows: int, waiting: int) -> None:
        self.now = slots, rows, waiting
        self.busiest = max(self.busiest, self.now)

    def flush(self, *, immediate: bool) -> None:
        if immediate:
            self.settled = self.frames, self.now


def test_everything_is_observed_before_the_consumer_hears_of_the_end(start: Start) -> None:
    engine, notes = GatedEngine(n_slots=2), Notes()
    scheduler = start(engine, observer=notes)
    streams = [scheduler.submit(song(6, cfg_scale=scale)) for scale in (1.5, 1.0, 1.5)]
    engine.open()
    for stream in streams:
        read(stream)
    assert notes.settled == (18, (0, 0, 0))
    assert notes.busiest[:2] == (2, 3)
    assert {what: len(seconds) for what, seconds in notes.seconds.items() if what != "step"} == {
        "queue": 3, "first_frame": 3, "prefill": 3,
    }  # fmt: skip
    assert len(notes.seconds["step"]) == engine.log.count("step")
    pairs = zip(notes.seconds["queue"], notes.seconds["first_frame"], strict=True)
    assert all(queued <= first for queued, first in pairs)


def test_streamed_songs_are_the_songs_alone(start: Start) -> None:
    scheduler = start(graph_engine(n_slots=3))
    streams = [scheduler.submit(SongState(wanted, BytesTokenizer(), PRESET)) for wanted in REQUESTS]
    for index, stream in enumerate(streams):
        np.testing.assert_array_equal(read(stream), codes_alone(index))
