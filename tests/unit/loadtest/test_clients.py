"""What a stream's caller hears, and how jobs are counted."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Generator
from typing import cast

import numpy as np
import pytest

from heartvoice.client import AudioChunk, Client
from heartvoice.client.messages import Message
from heartvoice.errors import DeadlineError, EngineError, HeartvoiceError, ModelUnavailableError
from heartvoice.loadtest.clients import (
    PlaybackStats,
    closed_loop,
    counts,
    listen,
    open_loop,
    outcome,
    percentiles,
    play,
)

RATE = 10
REFUSAL = "song: 4 jobs running and 8 waiting, no room for more; try again later"


class FakeClient:
    """Closing it ends jobs that wait for `go`."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.closed = False

    def close(self) -> None:
        self.closed = True
        self.go.set()


def fake() -> tuple[FakeClient, Client]:
    made = FakeClient()
    return made, cast(Client, made)


def test_a_player_that_is_always_ahead_never_stops() -> None:
    played = play([(3.0, 20), (3.5, 10), (6.0, 10)], RATE)  # 2 s, then 1 s, due at 5 s and 6 s
    assert (played.underruns, played.silence_s, played.buffer_s) == (0, 0.0, 0.0)


def test_a_player_stops_when_it_has_nothing_left_and_goes_on_later() -> None:
    # 1 s of audio each: the second comes 2 s late; the third, due 1 s after that, in time; the fourth 0.5 s late again.
    played = play([(0.0, 10), (3.0, 10), (4.0, 10), (5.5, 10)], RATE)
    assert played.underruns == 2
    assert played.silence_s == pytest.approx(2.5)
    assert played.buffer_s == pytest.approx(2.5), "had it waited so long, it would not have stopped"


def test_the_buffer_needed_is_enough_and_no_more() -> None:
    chunks = [(0.0, 10), (3.0, 30), (6.2, 10)]
    need = play(chunks, RATE).buffer_s
    for wait, stops in ((need, 0), (need - 0.01, 1)):
        assert play([(wait, 10), *chunks[1:]], RATE).underruns == stops


def test_gaps_are_between_chunks() -> None:
    assert PlaybackStats(chunks=[(1.0, 5), (1.5, 5), (3.5, 5)]).gaps_s == [0.5, 2.0]
    assert PlaybackStats(chunks=[(1.0, 5)]).gaps_s == []


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ModelUnavailableError(REFUSAL), "refused"),
        (ModelUnavailableError("svc: its process died in the middle of the job"), "broken"),
        (DeadlineError("song: no complete answer within 300 s"), "late"),
        (EngineError("boom"), "broken"),
    ],
)
def test_only_a_refusal_with_numbers_is_a_refusal(error: HeartvoiceError, expected: str) -> None:
    def make(_: Client) -> Generator[Message, None, None]:
        yield AudioChunk(np.zeros((2, 480), np.float32), 0)
        raise error

    heard = listen(fake()[1], make)
    assert heard.outcome == outcome(error) == expected
    assert str(error) == heard.error
    assert [n for _, n in heard.chunks] == [480]


def test_a_closed_loop_keeps_so_many_at_once() -> None:
    now, most, lock = 0, 0, threading.Lock()

    def make(_: Client) -> Generator[Message, None, None]:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.01)
        yield AudioChunk(np.zeros((2, 480), np.float32), 0)
        with lock:
            now -= 1

    heard = closed_loop(fake()[1], make, 3, 9)
    assert counts(heard) == {"done": 9, "refused": 0, "late": 0, "broken": 0}
    assert most == 3


def test_an_open_loop_does_not_wait_for_anyone() -> None:
    made, client = fake()

    def make(_: Client) -> Generator[Message, None, None]:
        made.go.wait(300)
        yield AudioChunk(np.zeros((2, 480), np.float32), 0)

    threading.Timer(0.5, made.go.set).start()
    heard = open_loop(client, make, 100.0, 0.3, seed=1)
    assert len(heard) > 10, "they began although none had ended"
    assert counts(heard)["done"] == len(heard)


def test_an_interruption_cancels_what_is_under_way() -> None:
    made, client = fake()

    def make(_: Client) -> Generator[Message, None, None]:
        made.go.wait(30)
        yield AudioChunk(np.zeros((2, 480), np.float32), 0)

    timer = threading.Timer(0.2, signal.pthread_kill, [threading.main_thread().ident, signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        closed_loop(client, make, 2, 4)
    timer.join()
    assert made.closed, "which ends every call"


def test_percentiles_of_nothing_are_nothing() -> None:
    assert percentiles("", []) == {}
    assert percentiles("x_", [1.0, 3.0], (50,)) == {"x_p50_ms": 2000.0}
