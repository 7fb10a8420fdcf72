"""What both clients promise, over a real gRPC connection."""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from heartvoice.client import AudioChunk, CodesChunk, Event, Report, SongRequest
from heartvoice.contracts.kserve import WANT_FINAL
from heartvoice.contracts.models import RENDER
from heartvoice.errors import (
    DeadlineError,
    EngineError,
    HeartvoiceError,
    InvalidRequestError,
    ModelMissingError,
    ModelUnavailableError,
    RequestCancelledError,
)
from tests.fakes.server import (
    FakeServer,
    abort,
    audio,
    codes,
    error_response,
    final,
    infer_response,
    input_bytes,
    input_raw,
    report,
    samples,
    scripted,
    stream_response,
)
from tests.support.callers import Caller

# ----------------------------------------------------------------------------------------------------- happy paths


def test_song_arrives_whole_with_report_and_timings(server: FakeServer, caller: Caller) -> None:
    song = caller.song(server.url, lyrics="la", tags="pop", seed=7)
    np.testing.assert_array_equal(song.audio, samples(0, 76_800))
    assert song.audio.dtype == np.float32
    assert song.audio.flags.writeable
    assert (song.seed, song.report.preset, song.report.random_weights) == (7, "tiny", True)
    assert song.duration_s == 1.6
    assert 0 < song.timings["ttfa_s"] <= song.timings["total_s"]
    assert song.timings["server"] == {"lm_s": 0.5}
    assert song.codes is None


def test_request_carries_texts_settings_and_the_final_flag(server: FakeServer, caller: Caller) -> None:
    caller.song(server.url, lyrics="[verse]\nlá", tags="pop", duration_s=12, seed=2**63 - 1, return_codes=False)
    (request,) = server.requests
    assert request.model_name == "song"
    assert request.id
    assert request.parameters[WANT_FINAL].bool_param
    assert input_bytes(request, "lyrics").decode() == "[verse]\nlá"
    assert input_bytes(request, "tags") == b"pop"
    assert input_raw(request, "duration_s") == struct.pack("<f", 12)
    assert input_raw(request, "seed") == struct.pack("<q", 2**63 - 1)
    assert input_raw(request, "return_codes") == b"\0"
    assert {(t.name, t.datatype, tuple(t.shape)) for t in request.inputs} == {
        ("lyrics", "BYTES", (1,)), ("tags", "BYTES", (1,)), ("duration_s", "FP32", (1,)),
        ("seed", "INT64", (1,)), ("return_codes", "BOOL", (1,)), ("events", "BOOL", (1,)),
    }  # fmt: skip


def test_numpy_scalars_are_settings_too(server: FakeServer, caller: Caller) -> None:
    caller.song(
        server.url, tags="pop", duration_s=np.float32(2.5), min_duration_s=np.float64(1), temperature=np.int16(1),
        seed=np.uint8(9), top_k=np.int64(5), return_codes=np.bool_(False), cfg_scale=np.longdouble(2),
    )  # fmt: skip
    (request,) = server.requests
    assert input_raw(request, "duration_s") == struct.pack("<f", 2.5)
    assert input_raw(request, "seed") == struct.pack("<q", 9)
    assert input_raw(request, "cfg_scale") == struct.pack("<f", 2)


def test_style_and_codes_are_sent_in_their_dtypes(server: FakeServer, caller: Caller) -> None:
    frames = np.arange(24, dtype=np.int64).reshape(8, 3)
    caller.song(server.url, style=np.ones(32), codes=frames)
    (request,) = server.requests
    assert input_raw(request, "style") == np.ones(32, "<f4").tobytes()
    assert input_raw(request, "codes") == frames.astype("<i4").tobytes()
    assert [list(t.shape) for t in request.inputs][:2] == [[32], [8, 3]]


def test_a_song_request_can_be_handed_over_whole(server: FakeServer, caller: Caller) -> None:
    caller.song(server.url, lyrics=SongRequest(lyrics="la", settings={"seed": 3, "top_k": None}))
    (request,) = server.requests
    assert [t.name for t in request.inputs] == ["lyrics", "seed", "events"]


def test_a_song_request_with_further_arguments_is_refused(server: FakeServer, caller: Caller) -> None:
    with pytest.raises(InvalidRequestError, match="SongRequest alone"):
        caller.song(server.url, lyrics=SongRequest(lyrics="la"), seed=3)


def test_stream_yields_chunks_codes_events_and_report_in_order(server: FakeServer, caller: Caller) -> None:
    messages = caller.messages(server.url, tags="pop", events=True, return_codes=True)
    kinds = [type(message) for message in messages]
    assert kinds == [Event, CodesChunk, AudioChunk, Event, CodesChunk, AudioChunk, Report]
    assert messages[0] == Event("lm", 10, 20, 1.0)
    assert [m.start for m in messages if isinstance(m, AudioChunk)] == [0, 48_000]
    assert isinstance(messages[-1], Report)
    assert messages[-1].comment == "AI-generated; heartvoice 0.1.0; seed 7; random weights"


def test_events_are_asked_for_as_a_sign_of_life_and_shown_on_demand(server: FakeServer, caller: Caller) -> None:
    messages = caller.messages(server.url, tags="pop")
    assert not [m for m in messages if isinstance(m, Event)]
    seen: list[Event] = []
    caller.song(server.url, tags="pop", on_event=seen.append)
    assert seen
    assert all(any(t.name == "events" for t in request.inputs) for request in server.requests)


@pytest.mark.parametrize("n_chunks", [0, 1])
def test_a_stream_without_a_sign_of_life_is_given_up(server: FakeServer, caller: Caller, n_chunks: int) -> None:
    cancelled = threading.Event()

    def stalls(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        context.add_callback(cancelled.set)
        if n_chunks:
            yield audio(0, 4800)
        cancelled.wait(300)

    server.song = stalls
    with pytest.raises(ModelUnavailableError, match=r"song: no sign of life for 0\.4 s"):
        caller.song(server.url, tags="pop", client={"stall_timeout_s": 0.4, "retries": 0})
    assert cancelled.wait(60), "the call was not cancelled on the server"


def test_song_collects_codes(server: FakeServer, caller: Caller) -> None:
    song = caller.song(server.url, tags="pop", return_codes=True)
    assert song.codes is not None
    np.testing.assert_array_equal(song.codes, np.tile(np.arange(20, dtype=np.int32), (8, 1)))


def test_report_may_share_the_final_response_or_the_last_chunk(server: FakeServer, caller: Caller) -> None:
    raw = b'{"seed": 1, "preset": "tiny", "random_weights": false}'
    server.song = scripted(stream_response({"AUDIO": samples(0, 5), "START": [0], "REPORT": raw}, final=True))
    song = caller.song(server.url, tags="pop")
    assert song.audio.shape == (2, 5)
    assert song.report.comment == "AI-generated; heartvoice 0.1.0; seed 1"


def test_responses_over_four_megabytes_arrive(server: FakeServer, caller: Caller) -> None:
    server.song = scripted(audio(0, 1_000_000), report(), final())  # 8 MB
    assert caller.song(server.url, tags="pop").audio.shape == (2, 1_000_000)


def test_render_returns_file_and_report(server: FakeServer, caller: Caller) -> None:
    data, made = caller.render(server.url, tags="pop", file_format="flac", seed=7)
    assert data == b"file:flac"
    assert made.seed == 7
    assert server.requests[0].model_name == "render"
    assert WANT_FINAL not in server.requests[0].parameters


def test_metadata_is_sent_with_every_call(server: FakeServer, caller: Caller) -> None:
    caller.song(server.url, client={"metadata": [("authorization", "Bearer x")]}, tags="pop")
    assert ("authorization", "Bearer x") in server.metadata


def test_keepalive_does_not_disturb_a_song(server: FakeServer, caller: Caller) -> None:
    assert caller.song(server.url, client={"keepalive_s": 0.05}, tags="pop").duration_s == 1.6


def test_readiness_is_true_false_or_unreachable(server: FakeServer, caller: Caller) -> None:
    assert caller.ready(server.url)
    assert caller.ready(server.url, "song")
    assert not caller.ready(server.url, "sing")
    server.ready = False
    assert not caller.ready(server.url)
    server.stop()
    assert not caller.ready(server.url)


# --------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, "lyrics, tags: expected text in at least one of them, got none"),
        ({"lyrics": "  \n"}, "lyrics, tags:"),
        ({"tags": "pop", "sed": 3}, "sed: song has no such setting; did you mean seed?"),
        ({"tags": "pop", "duration_s": 241}, "duration_s: expected 1 to 240 s, got 241"),
        ({"tags": "pop", "timeout_s": 0}, "timeout_s: expected a number above 0, got 0"),
    ],
)
def test_bad_input_is_refused_before_anything_is_sent(
    server: FakeServer, caller: Caller, arguments: dict[str, Any], text: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        caller.messages(server.url, **arguments)
    assert str(caught.value).startswith(text)
    assert not server.requests


def test_render_refuses_an_unknown_format(server: FakeServer, caller: Caller) -> None:
    with pytest.raises(InvalidRequestError, match=r"format: expected one of wav, flac, mp3, ogg, got 'aac'"):
        caller.render(server.url, tags="pop", file_format="aac")
    with pytest.raises(InvalidRequestError, match="events: render has no such setting"):
        caller.render(server.url, tags="pop", events=True)


ERRORS: list[tuple[str, type[HeartvoiceError], str]] = [
    ("INVALID_ARG: lyrics: expected x", InvalidRequestError, "lyrics: expected x"),
    ("UNAVAILABLE: song: 4 of 4 jobs", ModelUnavailableError, "song: 4 of 4 jobs"),
    ("CANCELLED: gone", RequestCancelledError, "gone"),
    ("DEADLINE_EXCEEDED: late", DeadlineError, "late"),
    ("INTERNAL: codec: broke", EngineError, "codec: broke"),
    ("boom", EngineError, "boom"),
]


@pytest.mark.parametrize(("text", "kind", "message"), ERRORS)
def test_the_servers_errors_come_back_as_their_classes(
    server: FakeServer, caller: Caller, text: str, kind: type[HeartvoiceError], message: str
) -> None:
    server.song = scripted(error_response(text), final())
    with pytest.raises(kind) as caught:
        caller.song(server.url, client={"retries": 0}, tags="pop")
    assert str(caught.value) == message


@pytest.mark.parametrize(("text", "kind", "message"), ERRORS)
def test_an_error_after_audio_ends_the_song(
    server: FakeServer, caller: Caller, text: str, kind: type[HeartvoiceError], message: str
) -> None:
    server.song = scripted(audio(0, 10), error_response(text), final())
    with pytest.raises(kind) as caught:
        caller.song(server.url, client={"retries": 0}, tags="pop")
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("code", "details", "kind"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARG: seed: no", InvalidRequestError),
        (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE: busy", ModelUnavailableError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "quota", ModelUnavailableError),
        (grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'render' is not found", ModelMissingError),
        (grpc.StatusCode.UNIMPLEMENTED, "no such method", ModelMissingError),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "proxy gave up", DeadlineError),
        (grpc.StatusCode.CANCELLED, "CANCELLED: gone", RequestCancelledError),
        (grpc.StatusCode.INTERNAL, "Failed to process the request(s)", EngineError),
        (grpc.StatusCode.UNKNOWN, "", EngineError),
    ],
)
def test_status_codes_become_errors_in_streams_and_unary_calls(
    server: FakeServer, caller: Caller, code: grpc.StatusCode, details: str, kind: type[HeartvoiceError]
) -> None:
    server.song = abort(code, details)
    server.render = lambda request, context: context.abort(code, details)
    for method in (caller.song, caller.render):
        with pytest.raises(kind) as caught:
            method(server.url, client={"retries": 0}, tags="pop")
        assert type(caught.value) is kind
        assert isinstance(caught.value.__cause__, grpc.RpcError)


@pytest.mark.parametrize(
    ("responses", "text"),
    [
        ([], "without its audio and report and final response"),
        ([audio(0, 5)], "after 5 samples without its report and final response"),
        ([audio(0, 5), final()], "after 5 samples without its report"),
        ([audio(0, 5), report()], "without its final response"),
        ([report(), final()], "without its audio"),
        ([audio(0, 5), audio(6, 5)], "AUDIO: expected the chunk that begins at 5, got START 6"),
        ([audio(0, 5), audio(0, 5)], "AUDIO: expected the chunk that begins at 5, got START 0"),
        ([audio(5, 5)], "AUDIO: expected the chunk that begins at 0, got START 5"),
        ([codes(0, 5), codes(4, 5)], "CODES: expected the chunk that begins at 5, got START 4"),
        ([audio(0, 5), report(samples=6)], "the report says 6 samples, got 5"),
        ([audio(0, 5), report(), audio(5, 5)], "got AudioChunk after the report"),
        ([audio(0, 5), report(), final(), final()], "got a response after the final one"),
        ([stream_response({})], "empty response that is not the final one"),
        ([audio(0, 5), report(seed="x")], "REPORT: seed: expected int, got 'x'"),
    ],
)
def test_a_stream_that_breaks_the_protocol_is_an_engine_error(
    server: FakeServer, caller: Caller, responses: list[Any], text: str
) -> None:
    server.song = scripted(*responses)
    with pytest.raises(EngineError) as caught:
        caller.song(server.url, tags="pop")
    assert text in str(caught.value)
    assert len(server.requests) == 1


def test_an_empty_file_is_an_engine_error(server: FakeServer, caller: Caller) -> None:
    server.render = lambda request, context: infer_response({"FILE": b"", "REPORT": b"{}"}, RENDER)
    with pytest.raises(EngineError, match="FILE: expected 1 to 100000000 bytes, got 0"):
        caller.render(server.url, tags="pop")
