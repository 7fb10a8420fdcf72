"""Deadlines, dying servers and retries, with both clients."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from heartvoice.errors import DeadlineError, HeartvoiceError, ModelUnavailableError
from tests.fakes.server import (
    FakeServer,
    abort,
    audio,
    endless_song,
    error_response,
    final,
    in_turn,
    scripted,
    short_song,
    silent_song,
)
from tests.support.callers import Caller


@pytest.mark.parametrize("song", [silent_song, endless_song])
def test_the_deadline_ends_the_song_on_both_sides(server: FakeServer, caller: Caller, song: Any) -> None:
    server.song = song
    with pytest.raises(DeadlineError, match=r"song: no complete answer within 0.3 s"):
        caller.song(server.url, tags="pop", timeout_s=0.3)
    assert server.cancelled.wait(60)


def test_the_clients_own_deadline_is_the_default(server: FakeServer, caller: Caller) -> None:
    server.song = silent_song
    with pytest.raises(DeadlineError, match=r"within 0.3 s"):
        caller.song(server.url, client={"timeout_s": 0.3}, tags="pop")


def test_render_has_a_deadline(server: FakeServer, caller: Caller) -> None:
    server.render = lambda request, context: list(silent_song(request, context))
    with pytest.raises(DeadlineError, match=r"render: no complete answer within 0.3 s"):
        caller.render(server.url, tags="pop", timeout_s=0.3)
    assert server.cancelled.wait(60)


def test_no_deadline_is_infinite(server: FakeServer, caller: Caller) -> None:
    assert caller.song(server.url, tags="pop", timeout_s=float("inf")).duration_s == 1.6


def test_a_server_that_dies_in_mid_song_is_said_to_have_died(server: FakeServer, caller: Caller) -> None:
    def dying(request: Any, context: grpc.ServicerContext) -> Any:
        yield audio(0, 5)
        server.stop_soon()
        yield from silent_song(request, context)

    server.song = dying
    with pytest.raises(ModelUnavailableError):
        caller.song(server.url, client={"retries": 0}, tags="pop", timeout_s=10)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "refusal",
    [
        scripted(error_response("UNAVAILABLE: song: 4 of 4 jobs"), final()),
        scripted(error_response("Stub process 'song_0_0' is not healthy.")),
        abort(grpc.StatusCode.UNAVAILABLE, "connection reset"),
        abort(grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'song' has no available versions"),
    ],
)
def test_a_refusal_is_tried_again(server: FakeServer, caller: Caller, refusal: Any) -> None:
    server.song = in_turn(refusal, short_song)
    assert caller.song(server.url, tags="pop").duration_s == 1.6
    assert len(server.requests) == 2
    assert server.requests[0].id == server.requests[1].id


def test_render_is_tried_again(server: FakeServer, caller: Caller) -> None:
    answer, calls = server.render, []

    def busy_once(request: Any, context: grpc.ServicerContext) -> Any:
        calls.append(request)
        if len(calls) == 1:
            context.abort(grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE: busy")
        return answer(request, context)

    server.render = busy_once
    assert caller.render(server.url, tags="pop")[0] == b"file:wav"
    assert len(calls) == 2


def test_a_server_that_starts_late_is_found(caller: Caller) -> None:
    late = FakeServer().start()
    url = late.url
    late.stop()
    late = FakeServer()
    late.start_later(port=int(url.rpartition(":")[2]), after_s=0.2)
    try:
        assert caller.song(url, client={"retries": 8}, tags="pop").duration_s == 1.6
    finally:
        late.stop()


@pytest.mark.parametrize(
    "text", ["INVALID_ARG: no", "INTERNAL: no", "CANCELLED: no", "Request for unknown model: 'song' is not found"]
)
def test_what_is_not_a_passing_refusal_is_not_tried_again(server: FakeServer, caller: Caller, text: str) -> None:
    server.song = in_turn(scripted(error_response(text)), short_song)
    with pytest.raises(HeartvoiceError):
        caller.song(server.url, tags="pop")
    assert len(server.requests) == 1


def test_retries_end_with_their_number_and_the_refusal(server: FakeServer, caller: Caller) -> None:
    server.song = scripted(error_response("UNAVAILABLE: song: 4 of 4 jobs"))
    with pytest.raises(ModelUnavailableError, match="4 of 4 jobs"):
        caller.song(server.url, client={"retries": 1}, tags="pop")
    assert len(server.requests) == 2


def test_retries_stay_within_the_deadline(server: FakeServer, caller: Caller) -> None:
    server.song = scripted(error_response("UNAVAILABLE: song: 4 of 4 jobs"))
    # The deadline may pass between two tries, or, on a busy machine, in the middle of one.
    with pytest.raises((ModelUnavailableError, DeadlineError), match=r"4 of 4 jobs|within 0\.5 s"):
        caller.song(server.url, client={"retries": 50}, tags="pop", timeout_s=0.5)
    assert len(server.requests) < 20
