"""The GB10's flags on the real server (an older one, without a GPU), and gRPC's health protocol."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from heartvoice.cli.health import CHECK
from heartvoice.client import Client
from heartvoice.contracts.constants import CONTRACT
from heartvoice.server.profiles import GB10
from heartvoice.server.server import EmbeddedServer, free_port
from tests.support.callers import heartvoice
from tests.support.raw import OF_SONGS


def test_server_takes_every_flag_of_the_profile(
    new_server: Callable[..., EmbeddedServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEARTVOICE_DEVICE", "cpu")
    server = new_server(profile=GB10, models=OF_SONGS)
    arguments = Path(f"/proc/{server.pid}/cmdline").read_text().split("\0")
    assert set(GB10.arguments) <= set(arguments)
    variables = Path(f"/proc/{server.pid}/environ").read_text().split("\0")
    assert "CUDA_MODULE_LOADING=LAZY" in variables
    assert "HEARTVOICE_DEVICE=cpu" in variables
    with Client(server.url) as client:
        assert client.song(lyrics="la", duration_s=1.0, codec_steps=1).audio.shape == (2, 49_920)


def test_cuda_that_is_not_there_is_the_reason_that_is_told(new_server: Callable[..., EmbeddedServer]) -> None:
    with pytest.raises(Exception, match="HEARTVOICE_DEVICE is cuda, but onnxruntime"):
        new_server(profile=GB10, models=("heartcodec",))


def test_health_by_grpcs_own_protocol(server: EmbeddedServer) -> None:
    with grpc.insecure_channel(server.url) as channel:
        assert channel.unary_unary(CHECK)(b"", timeout=60) == b"\x08\x01"  # SERVING


def test_health_command_answers_by_its_exit_code(server: EmbeddedServer) -> None:
    ready = heartvoice("health", "--url", server.url)
    assert (ready.exit_code, ready.stdout) == (0, "ready\n")
    nobody = heartvoice("health", "--url", f"127.0.0.1:{free_port()}", "--timeout", "1")
    assert nobody.exit_code == 3
    assert "nothing listens there" in nobody.stderr


def test_contract_version_is_the_models_version_and_in_reports(server: EmbeddedServer, client: Client) -> None:
    with grpc.insecure_channel(server.url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for name in server.models:
            metadata = stub.ModelMetadata(service_pb2.ModelMetadataRequest(name=name), timeout=60)
            assert list(metadata.versions) == [CONTRACT]
        with pytest.raises(grpc.RpcError, match=r"unknown model|not available"):
            stub.ModelMetadata(service_pb2.ModelMetadataRequest(name="song", version="9"), timeout=60)
    report = client.song(lyrics="la", duration_s=1.0, codec_steps=1).report
    assert report.raw["contract"] == CONTRACT


def test_health_command_needs_the_base_install_alone() -> None:
    code = "import sys, heartvoice.cli.health; print(*[m for m in ('torch', 'onnxruntime') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"
