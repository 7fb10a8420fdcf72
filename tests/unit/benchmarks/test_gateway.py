"""The gateway's benchmark: what it sends passes, and what it calls added is the difference of neighbours."""

from __future__ import annotations

import subprocess
import sys

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2_grpc

from benchmarks import gateway, gateway_cancel
from heartvoice.contracts.models import MODELS
from heartvoice.gateway import request_parser
from heartvoice.gateway.checks import check_request
from heartvoice.loadtest.harness import Timing


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        ("speaker_network", {"features": np.zeros((1, 16, 40))}),
        ("speaker_encoder", {"file": gateway.recording(0.1)}),
        ("song", {"lyrics": b"la", "duration_s": [20.0], "codec_window": [93], "events": [True]}),
    ],
)
def test_its_requests_pass_the_check(model: str, inputs: dict[str, object]) -> None:
    message = gateway.request(model, **inputs)
    assert check_request(request_parser.split(message.SerializeToString()), MODELS).name == model


def test_what_is_added_is_the_median_of_the_differences_of_neighbours() -> None:
    direct, through = Timing((1.0, 5.0, 2.0)), Timing((1.1, 5.2, 9.0))
    assert gateway.added_ms(through, direct) == pytest.approx(200.0)


def test_a_cancellation_is_timed_until_the_server_hears_of_it() -> None:
    with gateway_cancel.bare_server() as (address, endings), grpc.insecure_channel(address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        message = gateway.request("song", lyrics=b"la")
        assert 0 < gateway_cancel.cancel(lambda: stub.ModelStreamInfer(iter([message])), endings) < 10
        assert endings.at.empty()


def test_the_processor_time_of_another_process_is_read() -> None:
    script = "import time\nwhile time.process_time() < 0.2: pass\nprint(flush=True)\ninput()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert gateway.Route(None, pid=process.pid).cpu_s >= 0.2
        process.communicate(b"\n")
