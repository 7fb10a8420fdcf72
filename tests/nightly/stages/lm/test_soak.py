"""Two hundred songs through one scheduler, in random order, some of them cancelled and some too late."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import numpy as np

from heartvoice.errors import DeadlineError, RequestCancelledError
from heartvoice.stages.lm.scheduler import LmScheduler, SongStream
from heartvoice.stages.lm.song_state import SongState
from tests.fakes.networks import BytesTokenizer
from tests.support.lm_songs import PRESET, REQUESTS, codes_alone, graph_engine

SLOTS, AT_ONCE = 4, 12
MB = 2**20


def song_of(index: int) -> SongState:
    return SongState(REQUESTS[index], BytesTokenizer(), PRESET)


def rss() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def listen(stream: SongStream, stop_after: int | None) -> np.ndarray:
    """What a consumer gets that leaves after so many frames, or stays to whatever end there is."""
    frames = list[np.ndarray]()
    with stream:
        try:
            for frame in stream:
                frames.append(frame)
                if len(frames) == stop_after:
                    break
        except (DeadlineError, RequestCancelledError):
            pass
    return np.stack(frames) if frames else np.empty((0, 8), np.int32)


def play(scheduler: LmScheduler, draw: random.Random, count: int) -> int:
    """So many songs, `AT_ONCE` at a time; returns how many were heard to their end."""
    complete = 0
    for _ in range(0, count, AT_ONCE):
        wanted = [draw.randrange(len(REQUESTS)) for _ in range(AT_ONCE)]
        leaves = [draw.choice([None, None, 1, 3]) for _ in wanted]
        late = [draw.choice([None, None, None, 0.0, 0.05]) for _ in wanted]
        streams = [scheduler.submit(song_of(i), timeout_s=t) for i, t in zip(wanted, late, strict=True)]
        heard: dict[int, np.ndarray] = {}

        def work(place: int) -> None:
            heard[place] = listen(streams[place], leaves[place])  # noqa: B023 - joined below

        threads = [threading.Thread(target=work, args=(place,)) for place in range(AT_ONCE)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive(), "a song is stuck"
        for place, index in enumerate(wanted):
            expected, got = codes_alone(index), heard[place]
            assert np.array_equal(got, expected[: len(got)]), "a wrong song"
            if leaves[place] is None and late[place] is None:
                assert len(got) == len(expected)
            complete += len(got) == len(expected)
    return complete


def test_songs_of_all_kinds_leave_nothing_behind() -> None:
    draw = random.Random(5)
    scheduler = LmScheduler(graph_engine(SLOTS), max_waiting=AT_ONCE)
    try:
        play(scheduler, draw, 50)
        before = rss()
        complete = play(scheduler, draw, 150)
        growth = (rss() - before) / 150
        assert complete > 40
        assert growth < 0.1 * MB, f"{growth / MB:.3f} MB a song"
        last = [scheduler.submit(song_of(index)) for index in range(SLOTS)]
        for index, stream in enumerate(last):
            assert np.array_equal(listen(stream, None), codes_alone(index)), "a slot is stuck"
    finally:
        scheduler.close()
