"""Covers with both clients, over a real gRPC connection."""

from __future__ import annotations

import asyncio
import json
import struct
import threading
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import soundfile

from heartvoice import __version__
from heartvoice.audio.encode import write_audio
from heartvoice.client import AsyncClient, AudioChunk, Client, Event, Report
from heartvoice.contracts.kserve import WANT_FINAL
from heartvoice.contracts.models import RENDER
from heartvoice.contracts.provenance import provenance
from heartvoice.errors import (
    DeadlineError,
    EngineError,
    InvalidRequestError,
    ModelUnavailableError,
    RequestCancelledError,
)
from tests.fakes.server import (
    COVER_REPORT,
    REPORT,
    FakeServer,
    audio,
    codes,
    cover_report,
    endless_song,
    error_response,
    final,
    in_turn,
    infer_response,
    input_bytes,
    input_raw,
    report,
    samples,
    scripted,
    short_cover,
    silent_song,
)
from tests.support.callers import Caller

SONG = b"a song"
VOICE = b"a voice"


def cover(server: FakeServer, caller: Caller, client: dict[str, Any] | None = None, **arguments: Any) -> Any:
    """A cover of `SONG` in `VOICE`, with whatever else."""
    given: dict[str, Any] = {"recording": SONG, "voice": VOICE, "consent": "me"} | arguments
    return caller.call("cover", server.url, client, **given)


def test_a_cover_arrives_whole_with_report_and_timings(server: FakeServer, caller: Caller) -> None:
    made = cover(server, caller)
    np.testing.assert_array_equal(made.audio, samples(0, 76_800))
    assert made.report.converted is True
    assert made.report.similarity == {"encoder": "resemblyzer", "before": 0.41, "after": 0.83}
    assert (made.report.f0["change_semitones"], made.report.pitch["shift_semitones"]) == (-2.0, 0.0)
    assert made.report.warnings == ()
    assert 0 < made.timings["ttfa_s"] <= made.timings["total_s"]
    assert made.report.comment.endswith("; random weights")


def test_a_cover_request_carries_both_files_consent_and_settings(server: FakeServer, caller: Caller) -> None:
    cover(server, caller, consent="Jo, by e-mail", no_vocals="error", seed=9, vocal_gain_db=-3)
    (request,) = server.requests
    assert request.model_name == "cover"
    assert request.parameters[WANT_FINAL].bool_param
    assert input_bytes(request, "file") == SONG
    assert input_bytes(request, "voice") == VOICE
    assert input_bytes(request, "voice_consent") == b"Jo, by e-mail"
    assert input_bytes(request, "no_vocals") == b"error"
    assert input_raw(request, "seed") == struct.pack("<q", 9)
    assert input_raw(request, "vocal_gain_db") == struct.pack("<f", -3)
    assert input_raw(request, "events") == b"\1"
    assert len(request.inputs) == 7


def test_samples_are_sent_in_place_of_files(server: FakeServer, caller: Caller) -> None:
    stereo, mono = np.full((2, 8000), 0.5), np.full(30_000, 0.25, np.float32)
    cover(server, caller, recording=(stereo, 8000), voice=(mono, 10_000))
    (request,) = server.requests
    assert input_raw(request, "audio") == np.full((2, 8000), 0.5, "<f4").tobytes()
    assert input_raw(request, "voice_audio") == np.full(30_000, 0.25, "<f4").tobytes()
    assert struct.unpack("<q", input_raw(request, "sample_rate")) == (8000,)
    assert struct.unpack("<q", input_raw(request, "voice_sample_rate")) == (10_000,)
    shapes = {tensor.name: list(tensor.shape) for tensor in request.inputs}
    assert (shapes["audio"], shapes["voice_audio"]) == ([2, 8000], [1, 30_000])
    assert not {"file", "voice", "no_vocals"} & set(shapes)


def test_a_big_recording_arrives(server: FakeServer, caller: Caller) -> None:
    cover(server, caller, recording=b"x" * 20_000_000)
    assert len(input_bytes(server.requests[0], "file")) == 20_000_000


def test_stream_cover_yields_chunks_events_and_report_in_order(server: FakeServer, caller: Caller) -> None:
    arguments: dict[str, Any] = {"recording": SONG, "voice": VOICE, "consent": "me"}
    with_events = caller.items("stream_cover", server.url, **arguments, events=True)
    assert [type(message) for message in with_events] == [Event, AudioChunk, Event, Event, AudioChunk, Report]
    without = caller.items("stream_cover", server.url, **arguments)
    assert [type(message) for message in without] == [AudioChunk, AudioChunk, Report]
    seen: list[Event] = []
    cover(server, caller, on_event=seen.append)
    assert [event.stage for event in seen] == ["separate", "convert", "mix"]


def test_a_cover_is_rendered_on_the_server(server: FakeServer, caller: Caller) -> None:
    arguments: dict[str, Any] = {"recording": SONG, "voice": VOICE, "consent": "me"}
    data, made = caller.call("render_cover", server.url, **arguments, file_format="mp3", seed=4)
    assert data == b"file:mp3"
    assert made.converted is True
    (request,) = server.requests
    assert request.model_name == "render"
    assert {tensor.name for tensor in request.inputs} == {"file", "voice", "voice_consent", "format", "seed"}


def test_a_cover_says_where_it_is_from(tmp_path: Path, server: FakeServer, caller: Caller) -> None:
    tag = provenance(3, random_weights=False)
    source = write_audio(tmp_path / "song.flac", np.zeros((2, 48_000)), tag).path
    server.cover = scripted(audio(0, 48_000), cover_report(converted=False, warnings=["quiet"]), final())
    made = cover(server, caller, recording=source, no_vocals="passthrough")
    assert made.report.warnings == ("quiet",)
    written = made.save(tmp_path / "cover.wav")
    assert soundfile.SoundFile(written.path).comment == written.comment
    assert written.comment == f"passed through heartvoice {__version__}, not converted; from: {tag}"
    made = cover(server, caller)
    assert made.save(tmp_path / "cover.wav").comment == f"passed through heartvoice {__version__}, not converted"


# --------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            {"consent": ""},
            "consent: missing, expected who consents to the use of the voice and how, 1 to 500 characters",
        ),
        ({"consent": "x" * 501}, "consent: expected at most 500 characters, got 501"),
        ({"no_vocals": "keep"}, "no_vocals: expected one of error, passthrough, convert, got 'keep'"),
        ({"recording": "missing.mp3"}, "recording: cannot read 'missing.mp3': No such file or directory"),
        ({"recording": b""}, "recording: expected an encoded recording, got an empty file"),
        ({"recording": (np.zeros(4000), 8000)}, "recording: expected 1 to 600 s, got 0.5 s"),
        ({"voice": "/"}, "voice: expected a file, got '/', which is a folder"),
        ({"voice": (np.zeros(23_999), 8000)}, "voice: expected 3 to 600 s, got 2.999875 s"),
        ({"voice": (np.zeros(4_800_001), 8000)}, "voice: expected 3 to 600 s, got 600.0001 s"),
        ({"voice": 3}, "voice: expected a path, bytes or (samples, sample_rate_hz), got int"),
        ({"vocal_gain": 3}, "vocal_gain: {model} has no such setting; did you mean vocal_gain_db?"),
        ({"vocal_gain_db": 13}, "vocal_gain_db: expected -24 to 12 dB, got 13"),
        ({"duration_s": 30}, "duration_s: {model} has no such setting"),
        ({"timeout_s": 0}, "timeout_s: expected a number above 0, got 0"),
    ],
)
def test_bad_input_is_refused_before_anything_is_sent(
    server: FakeServer, caller: Caller, arguments: dict[str, Any], text: str
) -> None:
    given: dict[str, Any] = {"recording": SONG, "voice": VOICE, "consent": "me"} | arguments
    calls = ((caller.call, "cover"), (caller.items, "stream_cover"), (caller.call, "render_cover"))
    for call, method in calls:
        with pytest.raises(InvalidRequestError) as caught:
            call(method, server.url, **given)
        assert str(caught.value).startswith(text.format(model="render" if method == "render_cover" else "cover"))
    assert not server.requests


def test_consent_cannot_be_left_out(server: FakeServer, caller: Caller) -> None:
    with pytest.raises(InvalidRequestError, match="consent: missing, expected who consents"):
        caller.call("cover", server.url, recording=SONG, voice=VOICE)
    assert not server.requests


# ---------------------------------------------------------------------------------------------------- bad servers


@pytest.mark.parametrize(
    ("responses", "text"),
    [
        ([], "cover: the stream ended after 0 samples without its audio and report and final response"),
        ([audio(0, 5), final()], "cover: the stream ended after 5 samples without its report"),
        ([cover_report(), final()], "cover: the stream ended after 0 samples without its audio"),
        ([audio(0, 5), audio(6, 5)], "AUDIO: expected the chunk that begins at 5, got START 6"),
        ([codes(0, 5)], "cover: got an output 'CODES' that the contract does not have there"),
        ([audio(0, 5), report(), final()], "REPORT: converted: expected bool, got None"),
        ([audio(0, 5), cover_report(converted="yes"), final()], "REPORT: converted: expected bool, got 'yes'"),
        ([audio(0, 5), cover_report(warnings="none"), final()], "REPORT: warnings: expected list, got 'none'"),
        ([audio(0, 5), cover_report(similarity=0.5), final()], "REPORT: similarity: expected an object, got 0.5"),
        ([audio(0, 5), cover_report(f0=[]), final()], "REPORT: f0: expected an object, got []"),
        ([audio(0, 5), cover_report(samples=6), final()], "cover: the report says 6 samples, got 5"),
        ([audio(0, 5), cover_report(sample_rate_hz=44_100), final()], "cover: the report says 44100 sample_rate_hz"),
        ([audio(0, 5), cover_report(), audio(5, 5)], "cover: got AudioChunk after the report"),
    ],
)
def test_a_stream_that_breaks_the_protocol_is_an_engine_error(
    server: FakeServer, caller: Caller, responses: list[Any], text: str
) -> None:
    server.cover = scripted(*responses)
    with pytest.raises(EngineError) as caught:
        cover(server, caller)
    assert str(caught.value).startswith(text)
    assert len(server.requests) == 1


def test_a_rendered_cover_must_say_whether_it_was_converted(server: FakeServer, caller: Caller) -> None:
    made = {"FILE": b"x", "REPORT": json.dumps(REPORT).encode()}
    server.render = lambda request, context: infer_response(made, RENDER)
    with pytest.raises(EngineError, match="REPORT: converted: expected bool, got None"):
        caller.call("render_cover", server.url, recording=SONG, voice=VOICE, consent="me")


def test_reports_without_singing_have_empty_judgements() -> None:
    raw = {name: value for name, value in COVER_REPORT.items() if name not in ("similarity", "f0", "pitch")}
    made = Report.from_raw_voice(raw, recorded=True)
    assert (made.similarity, made.f0, made.pitch) == ({}, {}, {})


# ------------------------------------------------------------------------------------------- retries and endings


def test_a_refused_cover_is_tried_again_with_its_recording(server: FakeServer, caller: Caller) -> None:
    server.cover = in_turn(scripted(error_response("UNAVAILABLE: cover: 4 of 4 jobs"), final()), short_cover)
    assert cover(server, caller).duration_s == 1.6
    first, second = server.requests
    assert first == second
    assert input_bytes(second, "file") == SONG


def test_a_server_without_covers_is_unavailable_at_once(server: FakeServer, caller: Caller) -> None:
    server.cover = scripted(error_response("Request for unknown model: 'cover' is not found"))
    with pytest.raises(ModelUnavailableError, match="cover"):
        cover(server, caller)
    assert len(server.requests) == 1


@pytest.mark.parametrize("script", [silent_song, endless_song])
def test_the_deadline_ends_the_cover_on_both_sides(server: FakeServer, caller: Caller, script: Any) -> None:
    server.cover = script
    with pytest.raises(DeadlineError, match=r"cover: no complete answer within 0.3 s"):
        cover(server, caller, timeout_s=0.3)
    assert server.cancelled.wait(60)


def test_a_cover_without_a_sign_of_life_is_given_up(server: FakeServer, caller: Caller) -> None:
    server.cover = silent_song
    with pytest.raises(ModelUnavailableError, match=r"cover: no sign of life for 0\.4 s"):
        cover(server, caller, client={"stall_timeout_s": 0.4, "retries": 0})


def test_a_render_has_a_deadline_too(server: FakeServer, caller: Caller) -> None:
    def slow(request: Any, context: grpc.ServicerContext) -> Any:
        return list(silent_song(request, context))

    server.render = slow
    with pytest.raises(DeadlineError, match=r"render: no complete answer within 0.3 s"):
        caller.call("render_cover", server.url, recording=SONG, voice=VOICE, consent="me", timeout_s=0.3)
    assert server.cancelled.wait(60)


def test_leaving_the_loop_cancels_on_the_server(server: FakeServer) -> None:
    server.cover = endless_song
    with Client(server.url) as client:
        stream = client.stream_cover(SONG, VOICE, consent="me")
        assert not server.requests
        next(stream)
        stream.close()
        assert server.cancelled.wait(60)


def test_closing_the_client_ends_a_cover_of_another_thread(server: FakeServer) -> None:
    server.cover = silent_song
    client = Client(server.url)

    def close() -> None:
        server.wait_for_request()
        client.close()

    threading.Thread(target=close).start()
    with pytest.raises(RequestCancelledError, match="cover: the client was closed"):
        client.cover(SONG, VOICE, consent="me")
    assert server.cancelled.wait(60)


@pytest.mark.parametrize("method", ["cover", "render_cover"])
def test_cancelling_the_task_cancels_on_the_server(server: FakeServer, method: str) -> None:
    server.cover = endless_song
    server.render = lambda request, context: list(silent_song(request, context))

    async def main() -> None:
        async with AsyncClient(server.url) as client:
            task = asyncio.create_task(getattr(client, method)(SONG, VOICE, consent="me"))
            await asyncio.to_thread(server.wait_for_request)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(server.cancelled.wait, 3)

    asyncio.run(main())
