"""What is different for calls with one answer, and what is on record of them."""

from __future__ import annotations

import time

import grpc
import numpy as np
import pytest

from heartvoice.gateway import proxy
from heartvoice.gateway.rate_limits import Limits
from tests.fakes.server import FakeServer, infer_response
from tests.support.gateways import FILE, RunningGateway, Stub, running
from tests.support.raw import request
from tests.support.waiting import wait_until

LABELS = {"caller": "anonymous", "method": "ModelInfer", "model": "render", "code": "OK"}


def test_an_answer_that_is_not_read_keeps_its_place_among_the_calls_at_once(server: FakeServer) -> None:
    big = infer_response({"AUDIO": np.zeros((2, 5_000_000), np.float32)})
    server.render = lambda request, context: big
    with running(server.url, limits=Limits(stalled_s=0.2, concurrent=1)) as gateway, Stub(gateway.url) as stub:
        call = stub.channel.stream_stream("/inference.GRPCInferenceService/ModelInfer")
        unread = call(iter([request("render", FILE).SerializeToString()]), timeout=60)
        server.wait_for_request()
        time.sleep(2 * proxy.WATCH_S + 0.2)
        error = stub.refused("ModelInfer", request("render", FILE))
        assert error.details() == "anonymous: expected at most 1 calls at once, got one more"
        assert [len(message) for message in unread] == [big.ByteSize()]
        assert unread.code() is grpc.StatusCode.OK
        wait_until(lambda: gateway.gateway.n_live == 0, 60.0, "the place is not free")
        stub.calls.ModelInfer(request("render", FILE), timeout=60)


def test_calls_are_counted_soon_without_being_asked_for(gateway: RunningGateway) -> None:
    registry = gateway.gateway.metrics.registry
    with Stub(gateway.url) as stub:
        stub.calls.ModelInfer(request("render", FILE), timeout=60)
    wait_until(
        lambda: registry.get_sample_value("heartvoice_gateway_calls_total", LABELS) == 1, 60.0, "it is not counted"
    )


def test_a_broken_access_log_does_not_keep_calls_from_being_counted(
    gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise OSError("no such folder")

    monkeypatch.setattr("heartvoice.gateway.access_log.access_log.isEnabledFor", fail)
    with Stub(gateway.url) as stub:
        for _ in range(2):
            stub.calls.ModelInfer(request("render", FILE), timeout=60)
    wait_until(lambda: gateway.gateway.n_live == 0, 60.0, "calls live on")
    assert gateway.metric("calls_total", **LABELS) == 2
    assert "a call is not in the access log, builtins.OSError" in caplog.text
