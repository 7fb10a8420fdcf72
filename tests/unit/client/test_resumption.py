"""Jobs that a dying process lost: repeated, and continued at the sample where they broke off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import grpc
import numpy as np
import pytest

from heartvoice.client import AudioChunk, Client, CodesChunk, Event, StemsChunk
from heartvoice.client.messages import Chunk
from heartvoice.errors import EngineError, HeartvoiceError, InvalidRequestError, ModelUnavailableError
from tests.fakes.server import (
    FakeServer,
    Stream,
    audio,
    error_response,
    event,
    final,
    in_turn,
    report,
    samples,
    scripted,
    short_cover,
    short_song,
    short_stems,
    stems,
    stems_report,
)
from tests.support.callers import Caller

RECORDING = (np.full(8000, 0.1, np.float32), 8000)
VOICE = (np.full(3 * 8000, 0.1, np.float32), 8000)
COVER = {"recording": RECORDING, "voice": VOICE, "consent": "me", "stems": True}
JOBS: dict[str, tuple[str, Stream, dict[str, Any]]] = {
    "song": ("song", short_song, {"lyrics": "la", "return_codes": True}),
    "cover": ("cover", short_cover, COVER),
    "separate": ("demucs", short_stems, {"recording": RECORDING}),
}
STREAMS = {"song": "stream", "cover": "stream_cover", "separate": "stream_stems"}
DIED = "UNAVAILABLE: heartmula: its process died in the middle of the job"


def dies_after(n: int, whole: Stream) -> Stream:
    """Send the first `n` responses of `whole`, then the error of a job that a dead process lost."""

    def stream(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        for index, response in enumerate(whole(request, context)):
            if index == n:
                break
            yield response
        yield error_response(DIED)

    return stream


def payloads(messages: list[Any]) -> dict[str, Any]:
    """Every payload of a stream in one piece; no chunk may overlap another or leave a gap."""
    joined: dict[str, list[Any]] = {}
    lengths: dict[str, int] = {}
    for message in messages:
        if isinstance(message, Chunk):
            assert message.start == lengths.get(message.output, 0)
            lengths[message.output] = message.start + message.length
            joined.setdefault(message.output, []).append(message.payload)
    return {name: np.concatenate(parts, axis=-1) for name, parts in joined.items()}


def numbers(messages: list[Any]) -> dict[str, list[tuple[int, float]]]:
    """Progress of each stage, and the times."""
    found: dict[str, list[tuple[int, float]]] = {}
    for message in messages:
        if isinstance(message, Event):
            found.setdefault(message.stage, []).append((message.done, message.seconds))
    return found


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_a_stream_continues_where_it_broke_off(server: FakeServer, caller: Caller, job: str, n: int) -> None:
    model, whole, arguments = JOBS[job]
    undisturbed = caller.items(STREAMS[job], server.url, **arguments)
    setattr(server, model, in_turn(dies_after(n, whole), whole))
    messages = caller.items(STREAMS[job], server.url, **arguments, events=True)
    assert len(server.requests) == 3
    assert server.requests[1] == server.requests[2]
    expected, got = payloads(undisturbed), payloads(messages)
    assert expected.keys() == got.keys()
    assert all(np.array_equal(expected[name], got[name]) for name in expected)
    assert (undisturbed[-1].attempts, messages[-1].attempts) == (1, 2)
    for progress in numbers(messages).values():
        assert progress == sorted(progress), "progress goes back"


@pytest.mark.parametrize("job", JOBS)
def test_a_whole_job_is_repeated_whatever_was_received(server: FakeServer, caller: Caller, job: str) -> None:
    model, whole, arguments = JOBS[job]
    undisturbed = caller.call(job, server.url, **arguments)
    setattr(server, model, in_turn(dies_after(1, whole), dies_after(3, whole), dies_after(2, whole), whole))
    made = caller.call(job, server.url, **arguments)
    assert made.report.attempts == 4
    if job == "separate":
        assert all(np.array_equal(made[source], undisturbed[source]) for source in undisturbed)
    else:
        assert np.array_equal(made.audio, undisturbed.audio)


@pytest.mark.parametrize("job", ["render", "render_cover", "embed"])
def test_a_unary_job_is_repeated(server: FakeServer, caller: Caller, job: str) -> None:
    model = "speaker_encoder" if job == "embed" else "render"
    answer, calls = getattr(server, model), list[Any]()

    def lost_twice(request: Any, context: grpc.ServicerContext) -> Any:
        calls.append(request)
        if len(calls) < 3:
            context.abort(grpc.StatusCode.UNAVAILABLE, "Stub process 'render_0_0' is not healthy.")
        return answer(request, context)

    setattr(server, model, lost_twice)
    cover = {"recording": RECORDING, "voice": VOICE, "consent": "me"}
    of_jobs: dict[str, dict[str, Any]] = {
        "render": {"lyrics": "la"}, "render_cover": cover, "embed": {"recording": VOICE},
    }  # fmt: skip
    made = caller.call(job, server.url, **of_jobs[job])
    assert calls[0] == calls[2]
    assert (made if job == "embed" else made[1]).attempts == 3


def test_the_repeated_chunks_may_be_cut_elsewhere(server: FakeServer, caller: Caller) -> None:
    first = scripted(audio(0, 5), audio(5, 7), error_response(DIED))
    server.song = in_turn(first, scripted(audio(0, 3), audio(3, 11), audio(14, 1), report(samples=15), final()))
    messages = caller.messages(server.url, tags="pop")
    assert [(m.start, m.length) for m in messages if isinstance(m, AudioChunk)] == [(0, 5), (5, 7), (12, 2), (14, 1)]
    assert np.array_equal(payloads(messages)["AUDIO"], samples(0, 15))


def test_a_repeated_job_that_is_another_is_refused(server: FakeServer, caller: Caller) -> None:
    other = scripted(stems(0, 3, 2), stems(3, 9, 2), stems_report(("a", "b")), final())
    server.demucs = in_turn(scripted(stems(0, 6, 4), error_response(DIED)), other)
    with pytest.raises(EngineError, match="STEMS: the repeated job differs from the 6 samples that were delivered"):
        caller.items("stream_stems", server.url, recording=RECORDING)


def test_a_repeated_job_that_is_shorter_is_refused(server: FakeServer, caller: Caller) -> None:
    server.song = in_turn(
        scripted(audio(0, 9), error_response(DIED)), scripted(audio(0, 4), report(samples=4), final())
    )
    with pytest.raises(EngineError, match="AUDIO: the repeated job ended after 4 samples, 9 had been delivered"):
        caller.messages(server.url, tags="pop")


@pytest.mark.parametrize("text", ["INVALID_ARG: lyrics: no", "INTERNAL: codec: broke", "CANCELLED: gone"])
def test_other_errors_are_never_repeated(server: FakeServer, caller: Caller, text: str) -> None:
    server.song = in_turn(scripted(audio(0, 5), error_response(text)), short_song)
    with pytest.raises(HeartvoiceError):
        caller.song(server.url, tags="pop")
    assert len(server.requests) == 1


def test_a_job_that_kills_its_process_each_time_is_given_up(server: FakeServer, caller: Caller) -> None:
    server.song = scripted(event("lm", 1, 9), error_response(DIED))
    with pytest.raises(ModelUnavailableError, match="its process died in the middle of the job"):
        caller.song(server.url, tags="pop")
    assert len(server.requests) == 4


def test_a_stalled_stream_is_repeated(server: FakeServer, caller: Caller) -> None:
    def stalls(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        yield audio(0, 5)
        server.cancelled.wait(60)

    server.song = in_turn(stalls, short_song)
    assert caller.song(server.url, client={"stall_timeout_s": 0.3}, tags="pop").report.attempts == 2


def test_a_server_that_is_restarted_in_mid_song_continues_it(server: FakeServer, caller: Caller) -> None:
    port = int(server.url.rpartition(":")[2])
    second = FakeServer()

    def dying(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        yield audio(0, 5)
        second.start_later(port, after_s=0.4)
        server.stop_soon()
        server.cancelled.wait(60)

    server.song = dying
    try:
        song = caller.song(server.url, tags="pop")
        assert song.report.attempts > 1
        assert np.array_equal(song.audio, samples(0, 76_800))
    finally:
        second.stop()


def test_input_that_is_refused_by_the_second_server_is_said_to_be(server: FakeServer, caller: Caller) -> None:
    server.song = in_turn(
        scripted(audio(0, 5), error_response(DIED)), scripted(error_response("INVALID_ARG: lyrics: no"))
    )
    with pytest.raises(InvalidRequestError, match="lyrics: no"):
        caller.song(server.url, tags="pop")
    assert len(server.requests) == 2


def test_a_caller_that_left_is_not_repeated(server: FakeServer) -> None:
    server.song = in_turn(dies_after(3, short_song), short_song)
    with Client(server.url) as client, closing(client.stream("la", return_codes=True)) as stream:
        assert isinstance(next(stream), CodesChunk | AudioChunk | StemsChunk)
    assert len(server.requests) == 1
