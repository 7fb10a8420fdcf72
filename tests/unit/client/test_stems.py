"""Separations and embeddings with both clients, over a real gRPC connection."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import grpc
import numpy as np
import pytest

from heartvoice.client import AsyncClient, Client, Embedding, Event, Stems, StemsChunk, StemsReport
from heartvoice.contracts.kserve import WANT_FINAL
from heartvoice.contracts.models import DEMUCS, SPEAKER_ENCODER
from heartvoice.errors import DeadlineError, EngineError, InvalidRequestError
from tests.fakes.server import (
    SOURCES,
    FakeServer,
    audio,
    embedding,
    endless_stems,
    error_response,
    final,
    in_turn,
    infer_response,
    input_bytes,
    input_raw,
    scripted,
    short_stems,
    silent_song,
    stem_samples,
    stems,
    stems_report,
    stream_response,
)
from tests.support.callers import Caller

SONG = b"a song"


def separate(server: FakeServer, caller: Caller, client: dict[str, Any] | None = None, **arguments: Any) -> Stems:
    """Stems of `SONG`."""
    made: Stems = caller.call("separate", server.url, client, **({"recording": SONG} | arguments))
    return made


def test_stems_arrive_whole_by_name(server: FakeServer, caller: Caller) -> None:
    made = separate(server, caller)
    assert tuple(made) == SOURCES
    for index, source in enumerate(SOURCES):
        np.testing.assert_array_equal(made[source], stem_samples(0, 66_150)[index])
        assert made[source].dtype == np.float32
    assert (made.sample_rate_hz, made.duration_s, len(made)) == (44_100, 1.5, 4)
    assert made.report.sources == SOURCES
    assert made.timings["server"] == {"separation_s": 0.5}
    assert 0 < made.timings["ttfa_s"] <= made.timings["total_s"]
    assert made != separate(server, caller)


@pytest.mark.parametrize("sources", ["vocals, drums", ["vocals", "drums"], ("vocals", "drums")])
def test_wanted_stems_come_under_their_names_in_the_servers_order(
    server: FakeServer, caller: Caller, sources: Any
) -> None:
    made = separate(server, caller, sources=sources)
    assert tuple(made) == ("drums", "vocals")
    (request,) = server.requests
    assert request.model_name == "demucs"
    assert request.parameters[WANT_FINAL].bool_param
    assert input_bytes(request, "file") == SONG
    assert input_bytes(request, "sources") == b"vocals,drums"
    assert input_raw(request, "events") == b"\1"
    assert len(request.inputs) == 3


def test_stream_stems_yields_chunks_events_and_report_in_order(server: FakeServer, caller: Caller) -> None:
    with_events = caller.items("stream_stems", server.url, recording=SONG, events=True)
    assert [type(message) for message in with_events] == [Event, StemsChunk, StemsChunk, StemsReport]
    without = caller.items("stream_stems", server.url, recording=SONG)
    assert [type(message) for message in without] == [StemsChunk, StemsChunk, StemsReport]
    assert [message.start for message in without[:2]] == [0, 44_100]
    assert not without[0].stems.flags.writeable
    seen: list[Event] = []
    separate(server, caller, on_event=seen.append)
    assert seen == [Event("separate", 10, 19, 1.0)]


# --------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"recording": "missing.mp3"}, "recording: cannot read 'missing.mp3': No such file or directory"),
        ({"recording": (np.zeros((48_000, 2)), 8000)}, "recording: expected [channel, sample], got [48000, 2]"),
        ({"sources": ""}, "sources: expected names such as vocals, got ''"),
        ({"sources": ["vocals", "vocals"]}, "sources: expected each name once, got vocals, vocals"),
        ({"timeout_s": -1}, "timeout_s: expected a number above 0, got -1"),
    ],
)
def test_bad_input_is_refused_before_anything_is_sent(
    server: FakeServer, caller: Caller, arguments: dict[str, Any], text: str
) -> None:
    for call, method in ((caller.call, "separate"), (caller.items, "stream_stems")):
        with pytest.raises(InvalidRequestError) as caught:
            call(method, server.url, **({"recording": SONG} | arguments))
        assert str(caught.value).startswith(text)
    assert not server.requests


@pytest.mark.parametrize(
    ("responses", "text"),
    [
        ([], "demucs: the stream ended after 0 samples without its stems and report and final response"),
        ([stems_report(), final()], "demucs: the stream ended after 0 samples without its stems"),
        ([stems(0, 5), stems(4, 5)], "STEMS: expected the chunk that begins at 5, got START 4"),
        ([stems(0, 5), stems(5, 5, 3)], "STEMS: expected [4, 2] as before, got [3, 2]"),
        ([stems(0, 5, 2), stems_report()], "demucs: the report names 4 sources, got 2 stems"),
        ([stems(0, 5), stems_report(samples=4)], "demucs: the report says 4 samples, got 5"),
        ([stems(0, 5), stems_report(sample_rate_hz=48_000)], "demucs: the report says 48000 sample_rate_hz, got 44100"),
        ([stems(0, 5), stems_report(sources=None)], "REPORT: sources: expected list, got None"),
        ([stems(0, 5), stems_report(sources=[])], "REPORT: sources: expected names, got []"),
        ([stems(0, 5), stems_report(sources=["../x"])], "REPORT: sources: expected names, got ['../x']"),
        ([stems(0, 5), stems_report(sources=[3])], "REPORT: sources: expected names, got [3]"),
        ([stems(0, 5, 2), stems_report(sources=["a", "a"])], "REPORT: sources: expected each name once"),
        ([stems(0, 0)], "STEMS: got an empty chunk at 0"),
        (
            [stream_response({"STEMS": np.full((1, 2, 3), np.nan, np.float32), "START": [0]}, DEMUCS)],
            "STEMS: expected finite samples",
        ),
        (
            [stream_response({"CARRY": stem_samples(0, 5), "START": [0]}, DEMUCS)],
            "demucs: got an output that was not asked for: CARRY, START",
        ),
        ([audio(0, 5)], "demucs: got an output 'AUDIO' that the contract does not have there"),
    ],
)
def test_a_stream_that_breaks_the_protocol_is_an_engine_error(
    server: FakeServer, caller: Caller, responses: list[Any], text: str
) -> None:
    server.demucs = scripted(*responses)
    with pytest.raises(EngineError) as caught:
        separate(server, caller)
    assert str(caught.value).startswith(text)
    assert len(server.requests) == 1


def test_other_stems_than_the_wanted_ones_are_an_engine_error(server: FakeServer, caller: Caller) -> None:
    server.demucs = scripted(stems(0, 5, 1), stems_report(("drums",)), final())
    with pytest.raises(EngineError, match="REPORT: sources: expected vocals, got drums"):
        separate(server, caller, sources="vocals")


# ------------------------------------------------------------------------------------------- retries and endings


def test_a_refused_separation_is_tried_again(server: FakeServer, caller: Caller) -> None:
    server.demucs = in_turn(scripted(error_response("UNAVAILABLE: demucs: 4 of 4 jobs"), final()), short_stems)
    assert separate(server, caller).duration_s == 1.5
    assert len(server.requests) == 2


@pytest.mark.parametrize("script", [silent_song, endless_stems])
def test_the_deadline_ends_the_separation_on_both_sides(server: FakeServer, caller: Caller, script: Any) -> None:
    server.demucs = script
    with pytest.raises(DeadlineError, match=r"demucs: no complete answer within 0.3 s"):
        separate(server, caller, timeout_s=0.3)
    assert server.cancelled.wait(60)


def test_leaving_the_loop_cancels_on_the_server(server: FakeServer) -> None:
    server.demucs = endless_stems
    with Client(server.url) as client:
        stream = client.stream_stems(SONG)
        next(stream)
        stream.close()
        assert server.cancelled.wait(60)


def test_cancelling_the_task_cancels_on_the_server(server: FakeServer) -> None:
    server.demucs = endless_stems

    async def main() -> None:
        async with AsyncClient(server.url) as client:
            task = asyncio.create_task(client.separate(SONG))
            await asyncio.to_thread(server.wait_for_request)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(server.cancelled.wait, 3)

    asyncio.run(main())


# ------------------------------------------------------------------------------------------------------- embeddings


def test_an_embedding_is_a_unit_vector_that_can_be_compared(server: FakeServer, caller: Caller) -> None:
    one = caller.call("embed", server.url, recording=b"one")
    same = caller.call("embed", server.url, recording=b"one")
    other = caller.call("embed", server.url, recording=(np.full(9000, 0.1), 16_000))
    assert isinstance(one, Embedding)
    assert one.vector.shape == (256,)
    assert one.vector.dtype == np.float32
    assert (one.encoder, one.seconds, one.random_weights, one.warnings) == ("resemblyzer", 6.0, False, ())
    assert one.cosine(same) == pytest.approx(1, abs=1e-6)
    assert one.cosine(other) == pytest.approx(float(one.vector @ other.vector), abs=1e-6)
    assert server.requests[0].model_name == "speaker_encoder"
    assert [tensor.name for tensor in server.requests[0].inputs] == ["file"]
    assert [tensor.name for tensor in server.requests[2].inputs] == ["audio", "sample_rate"]


def test_vectors_of_different_encoders_are_not_compared() -> None:
    vector = np.eye(1, 192, dtype=np.float32)[0]
    with pytest.raises(InvalidRequestError, match=r"two of the same encoder, got campplus \[192\] and"):
        Embedding(vector, "campplus", 5).cosine(Embedding(vector, "resemblyzer", 5))
    assert Embedding(vector, "x", 5).cosine(Embedding(-vector, "x", 5)) == -1


@pytest.mark.parametrize(
    ("outputs", "text"),
    [
        ({"EMBEDDING": np.ones(4, np.float32)}, "speaker_encoder: expected EMBEDDING and REPORT, got EMBEDDING"),
        ({"EMBEDDING": np.ones(4, np.float32), "REPORT": b"{}"}, "EMBEDDING: expected a vector of length 1, got 2"),
        ({"EMBEDDING": np.full(4, np.nan, np.float32), "REPORT": b"{}"}, "EMBEDDING: expected a vector of length 1"),
        ({"EMBEDDING": np.zeros(0, np.float32), "REPORT": b"{}"}, "EMBEDDING: expected a vector of length 1, got 0"),
        *(
            (
                {
                    "EMBEDDING": np.array([1, 0], np.float32),
                    "REPORT": b'{"encoder": "e", "seconds": 1, "vectors": %b}' % vectors,
                },
                f"REPORT: {text}",
            )
            for vectors, text in (
                (b"[1]", "expected vectors by engine, got [1]"),
                (b'{"campplus": [1, 1]}', "vectors: campplus: expected a vector of length 1, got 1.41"),
                (b'{"campplus": [[1]]}', "vectors: campplus: expected a vector of length 1"),
                (b'{"campplus": ["a"]}', "vectors: campplus: expected numbers"),
                (b'{"campplus": [NaN]}', "vectors: campplus: expected a vector of length 1"),
            )
        ),
        ({"EMBEDDING": np.ones(1, np.float32), "REPORT": b"{}"}, "REPORT: expected encoder and seconds, got {}"),
        ({"EMBEDDING": np.ones(1, np.float32), "REPORT": b"[]"}, "REPORT: expected encoder and seconds, got []"),
        ({"EMBEDDING": np.ones((1, 1), np.float32), "REPORT": b"{}"}, "EMBEDDING: expected FP32 [embedding]"),
    ],
)
def test_an_answer_that_breaks_the_contract_is_an_engine_error(
    server: FakeServer, caller: Caller, outputs: dict[str, Any], text: str
) -> None:
    server.speaker_encoder = lambda request, context: infer_response(outputs, SPEAKER_ENCODER)
    with pytest.raises(EngineError) as caught:
        caller.call("embed", server.url, recording=b"one")
    assert str(caught.value).startswith(text)


def test_a_refused_embedding_is_tried_again(server: FakeServer, caller: Caller) -> None:
    calls: list[Any] = []

    def busy_once(request: Any, context: grpc.ServicerContext) -> Any:
        calls.append(request)
        if len(calls) == 1:
            context.abort(grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE: busy")
        return embedding(request, context)

    server.speaker_encoder = busy_once
    assert caller.call("embed", server.url, recording=b"one").encoder == "resemblyzer"
    assert len(calls) == 2


def test_an_embedding_has_a_deadline(server: FakeServer, caller: Caller) -> None:
    server.speaker_encoder = lambda request, context: list(silent_song(request, context))
    with pytest.raises(DeadlineError, match=r"speaker_encoder: no complete answer within 0.3 s"):
        caller.call("embed", server.url, recording=b"one", timeout_s=0.3)
    assert server.cancelled.wait(60)


def test_what_is_no_recording_is_not_embedded(server: FakeServer, caller: Caller) -> None:
    with pytest.raises(InvalidRequestError, match="recording: expected an encoded recording, got an empty file"):
        caller.call("embed", server.url, recording=b"")
    assert not server.requests


def test_extra_facts_of_a_report_are_kept(server: FakeServer, caller: Caller) -> None:
    made = {"encoder": "resemblyzer", "seconds": 2, "random_weights": True, "warnings": ["short"], "preset": "tiny"}
    outputs = {"EMBEDDING": np.ones(1, np.float32), "REPORT": json.dumps(made).encode()}
    server.speaker_encoder = lambda request, context: infer_response(outputs, SPEAKER_ENCODER)
    answer = caller.call("embed", server.url, recording=b"one")
    assert (answer.random_weights, answer.warnings, answer.raw["preset"]) == (True, ("short",), "tiny")
