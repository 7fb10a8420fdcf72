"""What a gateway refuses: sizes, rates, calls at once, streams without a request."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from heartvoice.client import Client
from heartvoice.errors import InvalidRequestError, ModelUnavailableError
from heartvoice.gateway.authentication import add_token
from heartvoice.gateway.rate_limits import Limits
from tests.fakes.server import FakeServer, silent_song
from tests.support.gateways import FILE, LYRICS, RunningGateway, Stub, running
from tests.support.raw import request
from tests.support.waiting import wait_until


def test_compressed_messages_are_refused(gateway: RunningGateway, server: FakeServer) -> None:
    with Stub(gateway.url) as stub:
        error = stub.refused("ModelInfer", request("render", FILE), compression=grpc.Compression.Gzip)
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert not server.requests


def test_messages_that_are_too_large_are_refused(server: FakeServer) -> None:
    limits = Limits(max_message_bytes=90_000, bytes_per_minute=90_000)
    with running(server.url, limits=limits) as gateway, Client(gateway.url, retries=0) as client:
        with pytest.raises(InvalidRequestError, match="larger than max"):
            client.song(codes=np.zeros((8, 3000), np.int32), lyrics="")
        with pytest.raises(InvalidRequestError, match="larger than max"):
            client.render(codes=np.zeros((8, 3000), np.int32), lyrics="")
    assert not server.requests


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        (Limits(requests_per_s=0.1), "anonymous: expected at most 0.1 requests a second, got more; try again in "),
        (
            Limits(bytes_per_minute=300, max_message_bytes=300),
            "anonymous: expected at most 300 bytes a minute, got more with these ",
        ),
    ],
)
def test_rates_are_limited_with_numbers(server: FakeServer, limits: Limits, text: str) -> None:
    with running(server.url, limits=limits) as gateway, Stub(gateway.url) as stub:
        for _ in range(5):
            with suppress(grpc.RpcError):
                stub.calls.ModelInfer(request("render", FILE), timeout=60)
        error = stub.refused("ModelInfer", request("render", FILE))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert error.details().startswith(text)
        answers = list(stub.calls.ModelStreamInfer(iter([request("song", LYRICS)]), timeout=60))
        assert answers[0].error_message.startswith(f"UNAVAILABLE: {text}")
        with Client(gateway.url, retries=0) as client, pytest.raises(ModelUnavailableError, match="try again in"):
            client.song(lyrics="la")
        assert gateway.metric("refused_total", reason="quota") >= 3


def test_calls_at_once_are_limited_and_a_place_is_free_again(server: FakeServer) -> None:
    server.song = silent_song
    with running(server.url, limits=Limits(concurrent=2)) as gateway, Stub(gateway.url) as stub:
        streams = [stub.calls.ModelStreamInfer(iter([request("song", LYRICS)])) for _ in range(2)]
        wait_until(lambda: len(server.requests) == 2, 60.0, "the streams did not begin")
        error = stub.refused("ModelInfer", request("render", FILE))
        assert error.details() == "anonymous: expected at most 2 calls at once, got one more"
        assert stub.calls.ServerReady(service_pb2.ServerReadyRequest()).ready, "probes are not limited"
        streams[0].cancel()
        wait_until(lambda: gateway.gateway.n_live == 1, 60.0, "the place is not free")
        stub.calls.ModelInfer(request("render", FILE), timeout=60)
        streams[1].cancel()


def test_probes_are_not_limited_and_nobody_fills_the_log(
    server: FakeServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    add_token(tmp_path / "tokens", "alice")
    limits = Limits(requests_per_s=0.01, max_message_bytes=100_000)
    with running(server.url, tokens=tmp_path / "tokens", limits=limits) as gateway, Stub(gateway.url) as stub:
        for _ in range(150):
            stub.calls.ServerReady(service_pb2.ServerReadyRequest(), timeout=60)
        with caplog.at_level("INFO", "heartvoice"):
            for _ in range(150):
                error = stub.refused("ModelInfer", service_pb2.ModelInferRequest(id="x" * 200_000))
                assert error.code() is grpc.StatusCode.UNAUTHENTICATED, "what nobody sends is not even received"
            wait_until(lambda: gateway.gateway.n_live == 0, 60.0, "calls live on")
            gateway.settle()
        assert gateway.metric("refused_total", reason="authentication") == 150
    lines = [record for record in caplog.records if '"caller": "-"' in record.getMessage()]
    assert 0 < len(lines) < 150


def test_requests_in_a_stream_are_limited(server: FakeServer) -> None:
    with running(server.url, limits=Limits(requests_per_stream=2)) as gateway, Stub(gateway.url) as stub:
        answers = stub.calls.ModelStreamInfer(iter([request("song", LYRICS)] * 3), timeout=60)
        errors = [answer.error_message for answer in answers if answer.error_message]
    assert errors == ["INVALID_ARG: requests: expected at most 2 in a stream, got one more"]
    assert len(server.requests) == 2


def test_a_call_without_a_request_is_ended(server: FakeServer) -> None:
    held = threading.Event()

    def never() -> Iterator[Any]:
        held.wait(300)
        yield from ()

    with running(server.url, limits=Limits(receive_s=0.2)) as gateway, Stub(gateway.url) as stub:
        for method in (
            stub.calls.ModelStreamInfer,
            stub.channel.stream_unary("/inference.GRPCInferenceService/ModelInfer"),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                list(method(never(), timeout=60))
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert caught.value.details().endswith("expected a request within 0.2 s, got none")
        held.set()
