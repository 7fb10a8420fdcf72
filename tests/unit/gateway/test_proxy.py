"""What passes through a gateway, in front of the clients' fake server."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import count
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from heartvoice.client import Client
from heartvoice.contracts.models import SONG
from heartvoice.errors import (
    DeadlineError,
    ModelMissingError,
    ModelUnavailableError,
    RequestCancelledError,
)
from heartvoice.gateway import proxy
from heartvoice.gateway.methods import DENIED
from heartvoice.gateway.rate_limits import Limits
from tests.fakes.server import (
    FakeServer,
    abort,
    audio,
    endless_song,
    error_response,
    final,
    infer_response,
    report,
    short_song,
    silent_song,
    stream_response,
)
from tests.support.callers import AsyncCaller, Caller, SyncCaller
from tests.support.gateways import FILE, LYRICS, RunningGateway, Stub, running
from tests.support.raw import request
from tests.support.waiting import wait_until


@pytest.fixture(params=[SyncCaller(), AsyncCaller()], ids=["sync", "async"])
def caller(request: pytest.FixtureRequest) -> Caller:
    chosen: Caller = request.param
    return chosen


def test_songs_come_through_as_they_are(gateway: RunningGateway, server: FakeServer, caller: Caller) -> None:
    through, direct = (caller.messages(url, lyrics="la", events=True) for url in (gateway.url, server.url))
    assert [type(message) for message in through] == [type(message) for message in direct]
    assert caller.render(gateway.url, lyrics="la") == caller.render(server.url, lyrics="la")
    assert caller.ready(gateway.url)
    assert caller.ready(gateway.url, "song")
    assert not caller.ready(gateway.url, "htdemucs"), "a native graph is not offered"


def test_a_request_reaches_the_server_byte_by_byte(stub: Stub, server: FakeServer) -> None:
    message = request("song", LYRICS)
    message.id = "0123-abc"
    list(stub.calls.ModelStreamInfer(iter([message])))
    assert server.requests[-1].SerializeToString() == message.SerializeToString()


def test_trace_headers_pass_and_others_do_not(stub: Stub, server: FakeServer) -> None:
    headers = (
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("authorization", "Bearer secret"),
        ("triton-grpc-protocol-heartvoice-admin", "guess"),
    )
    list(stub.calls.ModelStreamInfer(iter([request("song", LYRICS)]), metadata=headers))
    seen = dict(server.metadata)
    assert seen["traceparent"] == headers[0][1]
    assert not {"authorization", "triton-grpc-protocol-heartvoice-admin"} & set(seen)


def test_a_stream_carries_several_requests_while_answers_come(stub: Stub, server: FakeServer) -> None:
    answered = threading.Event()

    def requests() -> Iterator[Any]:
        yield request("song", LYRICS)
        assert answered.wait(60), "the first answer waits for the stream's end"
        yield request("song", LYRICS)

    n_answers = 0
    for _ in stub.calls.ModelStreamInfer(requests(), timeout=60):
        n_answers += 1
        answered.set()
    assert n_answers == 2 * len(list(short_song(request("song", LYRICS), None)))


def test_a_bad_request_in_a_stream_is_answered_there_and_the_stream_goes_on(stub: Stub, server: FakeServer) -> None:
    bad = service_pb2.ModelInferRequest(model_name="song")
    bad.inputs.add(name="codes", datatype="INT32", shape=[3002])
    answers = list(stub.calls.ModelStreamInfer(iter([bad, request("song", LYRICS)]), timeout=60))
    errors = [answer.error_message for answer in answers if answer.error_message]
    assert errors == ["INVALID_ARG: codes: expected INT32 [8, frame of 1 to 3001], got INT32 [3002]"]
    assert len(server.requests) == 1
    assert len(answers) > 2


def test_an_unknown_model_is_no_reason_to_try_again(gateway: RunningGateway, server: FakeServer, stub: Stub) -> None:
    error = stub.refused("ModelInfer", request("htdemucs", {}))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert error.details().startswith("Request for unknown model: 'htdemucs' is not found; model_name: expected one of")
    with running(server.url, models=("cover",)) as narrow, Client(narrow.url) as client:
        with pytest.raises(ModelMissingError, match="'song' is not found"):
            client.song(lyrics="la")
        assert narrow.metric("refused_total", reason="model") == 1, "it was tried again"


def test_a_bad_unary_request_never_reaches_the_server(stub: Stub, server: FakeServer) -> None:
    bad = service_pb2.ModelInferRequest(model_name="render")
    bad.inputs.add(name="codes", datatype="INT32", shape=[8, 3002])
    error = stub.refused("ModelInfer", bad)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details().startswith("codes: expected INT32 [8, frame of 1 to 3001]")
    assert not server.requests


@pytest.mark.parametrize("path", sorted(DENIED))
def test_admin_calls_are_denied(stub: Stub, path: str) -> None:
    call = stub.channel.unary_unary(path)
    with pytest.raises(grpc.RpcError) as caught:
        call(b"", timeout=60)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert caught.value.details() == f"{path.rpartition('/')[2]}: not offered by this gateway"


def test_unknown_calls_are_unimplemented(stub: Stub) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.channel.unary_unary("/grpc.channelz.v1.Channelz/GetServers")(b"", timeout=60)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_servers_status_passes_with_its_text_and_trailers(
    gateway: RunningGateway, server: FakeServer, stub: Stub
) -> None:
    def refuse(_: Any, context: grpc.ServicerContext) -> Any:
        context.set_trailing_metadata((("x-reason", "full"),))
        context.abort(grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE: render: 2 jobs running")

    server.render = refuse
    error = stub.refused("ModelInfer", request("render", FILE))
    assert (error.code(), error.details()) == (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE: render: 2 jobs running")
    assert ("x-reason", "full") in [tuple(pair) for pair in error.trailing_metadata()]
    server.song = abort(grpc.StatusCode.ABORTED, "no more")
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.calls.ModelStreamInfer(iter([request("song", LYRICS)]), timeout=60))
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.ABORTED, "no more")


def test_trailers_of_a_stream_that_goes_well_pass(server: FakeServer, stub: Stub) -> None:
    def song(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        context.set_trailing_metadata((("x-seconds", "3"),))
        yield from short_song(request, context)

    server.song = song
    call = stub.calls.ModelStreamInfer(iter([request("song", LYRICS)]), timeout=60)
    assert len(list(call)) > 1
    assert ("x-seconds", "3") in [tuple(pair) for pair in call.trailing_metadata()]


@pytest.mark.parametrize("method", ["ModelInfer", "ModelStreamInfer"])
def test_a_fault_of_the_gateway_is_logged_and_not_described(
    server: FakeServer, stub: Stub, method: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a caller's lyrics")

    monkeypatch.setattr("heartvoice.gateway.methods.check_request", fail)
    call = stub.channel.stream_stream(f"/inference.GRPCInferenceService/{method}")
    with pytest.raises(grpc.RpcError) as caught:
        list(call(iter([request("song", LYRICS).SerializeToString()]), timeout=60))
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert caught.value.details() == "internal error; see the gateway's log"
    assert "builtins.RuntimeError" in caplog.text
    assert "a caller's lyrics" not in caplog.text
    assert not server.requests


def test_a_caller_that_leaves_cancels_on_the_server(
    gateway: RunningGateway, server: FakeServer, caller: Caller
) -> None:
    server.song = endless_song
    with pytest.raises(DeadlineError):
        caller.song(gateway.url, lyrics="la", timeout_s=0.5)
    assert server.cancelled.wait(60)
    wait_until(lambda: gateway.gateway.n_live == 0, 60.0, "the call lives on")


def test_a_cancelled_stream_is_cancelled_on_the_server(gateway: RunningGateway, server: FakeServer) -> None:
    server.song = endless_song
    with Client(gateway.url) as client:
        stream = client.stream(lyrics="la")
        next(stream)
        stream.close()
        assert server.cancelled.wait(60)


def test_a_cancelled_unary_call_is_cancelled_on_the_server(stub: Stub, server: FakeServer) -> None:
    def slow(_: Any, context: grpc.ServicerContext) -> Any:
        gone = threading.Event()
        context.add_callback(gone.set)
        gone.wait(300)
        return infer_response({})

    server.render = slow
    call = stub.calls.ModelInfer.future(request("render", FILE))
    server.wait_for_request()
    call.cancel()
    assert server.cancelled.wait(60)


def test_a_server_that_is_not_there_is_unavailable_and_not_described(server: FakeServer) -> None:
    with running(server.url) as gateway, Stub(gateway.url) as stub:
        server.stop()
        error = stub.refused("ModelInfer", request("render", FILE))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert error.details() == "the server behind the gateway cannot be reached"
        with pytest.raises(grpc.RpcError) as caught:
            list(stub.calls.ModelStreamInfer(iter([request("song", LYRICS)]), timeout=60))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert caught.value.details() == "the server behind the gateway cannot be reached"


def test_a_caller_that_does_not_read_hurts_itself_alone(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "DRAIN_TIMEOUT_S", 0.2)  # this server has more at any time
    sent = []

    def flood(_: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        for start in count(0, 100_000):
            sent.append(start)
            yield audio(start, 100_000)  # 0.8 MB

    server.song = flood
    with running(server.url, limits=Limits(stalled_s=3.0, requests_per_s=1e6)) as gateway, Stub(gateway.url) as stalled:
        stream = stalled.calls.ModelStreamInfer(iter([request("song", LYRICS)]))
        next(stream)
        wait_until(lambda: len(sent) > 1, 60.0, "nothing was sent")
        with Stub(gateway.url) as other:
            began = time.monotonic()
            while time.monotonic() < began + 0.5:
                other.calls.ModelInfer(request("render", FILE), timeout=60)
            assert len(sent) < 100, "the gateway took in what nobody reads"
            wait_until(server.cancelled.is_set, 60.0, "the stalled call was not ended")
            other.calls.ModelInfer(request("render", FILE), timeout=60)
        stream.cancel()


def test_a_vanished_caller_is_noticed(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heartvoice.gateway.server.PING_S", 1.0)
    monkeypatch.setattr("heartvoice.gateway.server.PING_TIMEOUT_S", 1.0)
    server.song = silent_song
    script = "import sys; from heartvoice.client import Client; Client(sys.argv[1]).song(lyrics='la')"
    with running(server.url) as gateway:
        caller = subprocess.Popen([sys.executable, "-c", script, gateway.url])
        try:
            server.wait_for_request()
            caller.send_signal(signal.SIGSTOP)  # its kernel still answers, but nobody answers pings
            assert server.cancelled.wait(60)
        finally:
            caller.kill()
            caller.wait()


def is_taken_in(url: str) -> bool:
    """Whether a gateway takes a new call."""
    with Client(url, retries=0) as client:
        try:
            return client.server_ready()
        except (ModelUnavailableError, RequestCancelledError):  # a call that meets the stop itself is cancelled
            return False


def test_calls_under_way_may_finish_at_a_stop(server: FakeServer) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(_: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        yield audio(0, 48_000)
        begun.set()
        go_on.wait(300)
        yield report(samples=48_000)
        yield final()

    server.song = slow
    with running(server.url) as gateway, Client(gateway.url, retries=0) as client:
        stream = client.stream(lyrics="la")
        next(stream)
        stopper = threading.Thread(target=gateway.stop, args=(300.0,))
        stopper.start()
        wait_until(lambda: not is_taken_in(gateway.url), 60.0, "new calls are still taken in")
        with Client(gateway.url, retries=0) as late, pytest.raises(ModelUnavailableError):
            late.song(lyrics="la", timeout_s=60)
        go_on.set()
        assert len(list(stream)) == 1
        stopper.join(60)
        assert not stopper.is_alive()


def test_calls_that_do_not_finish_are_cancelled_at_a_stop(server: FakeServer) -> None:
    server.song = silent_song
    with running(server.url) as gateway, Stub(gateway.url) as stub:
        stream = stub.calls.ModelStreamInfer(iter([request("song", LYRICS)]))
        server.wait_for_request()
        gateway.stop(0.2)
        with pytest.raises(grpc.RpcError):
            next(stream)
        assert server.cancelled.wait(60)


def test_calls_are_counted_and_logged_without_what_is_in_them(
    gateway: RunningGateway, server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "heartvoice"), Client(gateway.url) as client:
        client.song(lyrics="the kettle hums", tags="secret tags")
        client.render(lyrics="the kettle hums")
        with Stub(gateway.url) as stub:
            stub.refused("ModelInfer", request("render", {"job_id": np.array([b"x"], object)}))
        wait_until(lambda: gateway.gateway.n_live == 0, 60.0, "calls live on")
        gateway.settle()
    lines = [record.getMessage() for record in caplog.records if record.name == "heartvoice.gateway.access"]
    assert len(lines) == 3
    assert '"method": "ModelStreamInfer", "model": "song"' in lines[0]
    assert all(json.loads(line)["address"].startswith("127.0.0.1:") for line in lines)
    assert '"code": "INVALID_ARGUMENT"' in lines[2]
    assert "job_id: expected nothing" in lines[2]
    assert "kettle" not in caplog.text
    assert "secret" not in caplog.text
    labels = {"caller": "anonymous", "method": "ModelStreamInfer", "model": SONG.name, "code": "OK"}
    assert gateway.metric("calls_total", **labels) == 1
    assert gateway.metric("refused_total", reason="request") == 1
    assert gateway.metric("bytes_total", caller="anonymous", direction="out") > 600_000
    assert gateway.metric("calls_live") == 0


def test_large_answers_pass(gateway: RunningGateway, server: FakeServer) -> None:
    big = stream_response({"AUDIO": np.zeros((2, 5_000_000), np.float32), "START": [0]})
    server.song = lambda request, context: iter([big])
    with Stub(gateway.url) as stub:
        (answer,) = stub.calls.ModelStreamInfer(iter([request("song", LYRICS)]), timeout=60)
    assert len(answer.infer_response.raw_output_contents[0]) == 40_000_000


REGION = "heartvoice_4711_99_abcd_51"
USED_UP = (
    f"Failed to increase the shared memory pool size for key '{REGION}' to 40 bytes. Error: No space left on device"
)


def test_no_caller_learns_the_name_of_a_shared_memory_region(stub: Stub, server: FakeServer) -> None:
    server.song = lambda _, context: iter([error_response(USED_UP)])
    (answer,) = stub.calls.ModelStreamInfer(iter([request("song", LYRICS)]), timeout=60)
    assert answer.error_message == "UNAVAILABLE: song: the server has run out of shared memory; try again later"
    server.render = lambda _, context: context.abort(grpc.StatusCode.INTERNAL, USED_UP)
    error = stub.refused("ModelInfer", request("render", FILE))
    assert (error.code(), REGION in error.details()) == (grpc.StatusCode.UNAVAILABLE, False)
