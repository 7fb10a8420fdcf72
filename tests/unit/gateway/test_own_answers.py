"""What the gateway says of itself and of the server behind it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2
from tritonclient.grpc import service_pb2, service_pb2_grpc
from typer.testing import CliRunner

from heartvoice.cli.main import app
from heartvoice.contracts.about import ABOUT
from heartvoice.errors import InvalidRequestError
from heartvoice.gateway import own_answers
from heartvoice.gateway.authentication import add_token
from heartvoice.gateway.own_answers import service_of
from heartvoice.gateway.proxy import address_of
from heartvoice.gateway.reflection import PATHS
from tests.fakes.server import FakeServer
from tests.support import gateways
from tests.support.gateways import NOT_SERVING, SERVICE_UNKNOWN, SERVING, RunningGateway, encoded, running, watching


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_answers, "LATELY_S", -1.0)


@pytest.fixture
def channel(gateway: RunningGateway) -> Iterator[Any]:
    with grpc.insecure_channel(gateway.url) as made:
        yield made


def check(channel: Any, service: str = "") -> bytes:
    answer: bytes = channel.unary_unary("/grpc.health.v1.Health/Check")(encoded(service), timeout=60)
    return answer


def server_ready(channel: Any) -> bool:
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    return bool(stub.ServerReady(service_pb2.ServerReadyRequest(), timeout=60).ready)


def health(gateway: RunningGateway, *options: str) -> int:
    return CliRunner().invoke(app, ["health", "--url", gateway.url, *options]).exit_code


def test_a_gateway_is_ready_when_its_server_is(channel: Any, server: FakeServer, gateway: RunningGateway) -> None:
    assert check(channel) == check(channel, "readiness") == check(channel, "inference.GRPCInferenceService") == SERVING
    assert health(gateway) == 0
    server.ready = False
    assert check(channel) == NOT_SERVING
    assert not server_ready(channel)
    assert health(gateway) == 3


def test_a_server_that_is_being_stopped_is_not_ready(channel: Any, server: FakeServer, gateway: RunningGateway) -> None:
    server.facts = {}
    server.models.add(ABOUT)
    assert check(channel) == SERVING
    server.models.remove(ABOUT)  # as the supervisor does when a stop begins
    assert check(channel) == check(channel, "song") == NOT_SERVING
    assert not server_ready(channel)
    assert health(gateway) == health(gateway, "--model", "song") == 3
    assert health(gateway, "--live") == 0


def test_a_model_that_is_replaced_is_not_ready_and_the_rest_is(
    channel: Any, server: FakeServer, gateway: RunningGateway
) -> None:
    server.models.remove("cover")
    assert [check(channel, name) for name in ("", "song", "cover")] == [SERVING, SERVING, NOT_SERVING]
    assert [health(gateway, "--model", name) for name in ("song", "cover")] == [0, 3]


def test_a_gateway_without_its_server_lives_and_is_not_ready(server: FakeServer) -> None:
    with running(server.url) as gateway, grpc.insecure_channel(gateway.url) as channel:
        server.stop()
        assert [check(channel, name) for name in ("liveness", "", "song")] == [SERVING, NOT_SERVING, NOT_SERVING]
        assert health(gateway, "--live") == 0
        assert health(gateway) == 3


def test_watchers_are_told_of_every_change(
    gateway: RunningGateway, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_answers, "WATCH_S", 0.02)
    server.facts = {}
    server.models.add(ABOUT)
    with ExitStack() as opened:
        names = ("", "song", "cover", "liveness", "nothing")
        watchers = [opened.enter_context(watching(gateway.url, name)) for name in names]
        assert [next(each) for each in watchers] == [SERVING] * 4 + [SERVICE_UNKNOWN]
        whole, song, cover, live, unknown = watchers
        server.models.remove("cover")  # its process is replaced
        assert next(cover) == NOT_SERVING
        server.models.add("cover")
        assert next(cover) == SERVING, "and the others were told nothing meanwhile"
        server.models.remove(ABOUT)  # a stop begins
        assert [next(each) for each in (whole, song, cover)] == [NOT_SERVING] * 3
        server.models.add(ABOUT)
        assert [next(each) for each in (whole, song, cover)] == [SERVING] * 3
        gateway.stop(60.0)  # which is the time for songs, not for them
        assert [list(each) for each in (whole, live, unknown)] == [[NOT_SERVING]] * 3


def test_a_watcher_asks_for_a_service(gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateways, "encoded", lambda service: b"\x12\x04song")
    with watching(gateway.url) as call, pytest.raises(grpc.RpcError, match="service: expected a name of at most 127"):
        next(call)


def test_watchers_are_limited_since_they_need_no_token(
    gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_answers, "MAX_WATCHERS", 1)
    with watching(gateway.url) as first:
        assert next(first) == SERVING
        with watching(gateway.url) as second, pytest.raises(grpc.RpcError) as caught:
            next(second)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "Watch: expected at most 1 at once, got one more" in caught.value.details()


@pytest.mark.parametrize("service", ["htdemucs", "nothing"])
def test_a_service_that_is_not_offered_is_unknown(channel: Any, service: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        check(channel, service)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert "expected nothing or one of liveness, readiness, song" in caught.value.details()


@pytest.mark.parametrize("message", [b"\x0a", b"\x0a\x05song", b"\x12\x04song", b"\x0a\x80\x01" + b"a" * 128])
def test_what_is_no_health_check_is_refused(message: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="service: expected a name of at most 127 bytes"):
        service_of(message)


def test_metadata_says_what_the_server_is(channel: Any, server: FakeServer) -> None:
    server.facts = {"version": "1.2", "preset": "tiny", "contract": "1", "weights": "random seed=0",
                    "random_weights": "true", "models": "[]"}  # fmt: skip
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    about = stub.ServerMetadata(service_pb2.ServerMetadataRequest(), timeout=60)
    assert (about.name, about.version) == ("heartvoice", "1.2")
    assert {"heartvoice:preset=tiny", "heartvoice:contract=1", "heartvoice:weights=random seed=0",
            "heartvoice:random_weights=true"} <= set(about.extensions)  # fmt: skip


def reflect(channel: Any, path: str, **options: Any) -> Any:
    call = channel.stream_stream(path)
    message = reflection_pb2.ServerReflectionRequest(**options).SerializeToString()
    (answer,) = list(call(iter([message]), timeout=60))
    return reflection_pb2.ServerReflectionResponse.FromString(answer)


@pytest.mark.parametrize("path", PATHS)
def test_tools_find_the_protocol_by_reflection(channel: Any, path: str) -> None:
    listed = reflect(channel, path, list_services="").list_services_response.service
    assert "inference.GRPCInferenceService" in [service.name for service in listed]
    found = reflect(channel, path, file_containing_symbol="inference.GRPCInferenceService")
    assert any(b"ModelStreamInfer" in file for file in found.file_descriptor_response.file_descriptor_proto)


def test_metadata_and_reflection_are_for_callers_with_a_name(server: FakeServer, tmp_path: Path) -> None:
    token = add_token(tmp_path / "tokens", "alice")
    with running(server.url, tokens=tmp_path / "tokens") as gateway, grpc.insecure_channel(gateway.url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError, match="expected one header"):
            stub.ServerMetadata(service_pb2.ServerMetadataRequest(), timeout=60)
        with pytest.raises(grpc.RpcError, match="expected one header"):
            reflect(channel, PATHS[0], list_services="")
        headers = [("authorization", f"Bearer {token}")]
        assert stub.ServerMetadata(service_pb2.ServerMetadataRequest(), metadata=headers, timeout=60).name == ABOUT
        assert health(gateway) == 0, "health needs no token"


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:10.0.0.7:50312", "10.0.0.7:50312"), ("ipv6:%5B::1%5D:50312", "[::1]:50312"), ("unix:", ""),
        ("unix:/tmp/x", ""),
    ],
)  # fmt: skip
def test_addresses_are_plain(peer: str, address: str) -> None:
    assert address_of(peer) == address
