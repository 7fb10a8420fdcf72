"""How long calls are given that name no deadline."""

from __future__ import annotations

import numpy as np
import pytest

from heartvoice.client import wire
from heartvoice.client.connection import Connection
from heartvoice.client.deadlines import PROGRESS_TIMEOUT_S, ProgressWatch, job_timeout_s, length_s
from heartvoice.client.messages import AudioChunk, Event
from heartvoice.client.recordings import Recording
from heartvoice.client.requests import SongRequest, as_cover
from heartvoice.contracts.models import SONG
from heartvoice.errors import DeadlineError
from tests.support.raw import request

VOICE = (np.zeros(8000 * 3, np.float32) + 0.1, 8000)


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        (wire.encode_job(SongRequest(lyrics="la"), events=True), 30.0),
        (wire.encode_render(SongRequest(lyrics="la", settings={"duration_s": 240.0}), "wav"), 240.0),
        (wire.encode_job(SongRequest(codes=np.zeros((8, 125), np.int32))), 10.0),
        (wire.encode_job(as_cover((np.zeros((2, 8000 * 90), np.float32), 8000), VOICE, consent="me")), 90.0),
        (wire.encode_stems(Recording(file=b"f" * 8000), None), 2.0),
        (wire.encode_stems(Recording(file=b"f" * 50_000_000), None), 600.0),
        (request("heartcodec", {}), 0.0),
    ],
)
def test_deadlines_follow_what_is_brought_or_asked_for(message: object, seconds: float) -> None:
    assert length_s(message) == pytest.approx(seconds, rel=1e-3)
    assert job_timeout_s(message) == pytest.approx(600 + 60 * seconds, rel=1e-3)
    assert Connection().attempts("x", None, message).remaining_s() == pytest.approx(600 + 60 * seconds, abs=5)
    assert Connection(timeout_s=7.0).attempts("x", None, message).remaining_s() == pytest.approx(7, abs=1)
    assert Connection().attempts("x", 5.0, message).remaining_s() == pytest.approx(5, abs=1)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def event(stage: str, done: int) -> Event:
    return Event(stage, done, 10, 1.0)


def test_a_job_without_progress_ends_and_one_that_goes_on_does_not() -> None:
    clock = Clock()
    watch = ProgressWatch(SONG.name, clock=clock)
    for _ in range(3):
        watch.look([event("queued", 0)])
        clock.now += PROGRESS_TIMEOUT_S  # it may wait behind others
    for done in range(3):
        watch.look([event("lm", done)])
        clock.now += PROGRESS_TIMEOUT_S - 1
    watch.look([AudioChunk(np.zeros((2, 10), np.float32), 0)])
    clock.now += PROGRESS_TIMEOUT_S - 1
    watch.look([event("lm", 2)])
    clock.now += 2
    with pytest.raises(DeadlineError, match="song: no progress for 600 s, lm 2 of 10"):
        watch.look([event("lm", 2)])
