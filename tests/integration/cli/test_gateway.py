"""The command: what it demands before it listens, what it says, how it ends."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from heartvoice.client import Client
from heartvoice.errors import InvalidRequestError, ModelUnavailableError
from heartvoice.gateway.authentication import Tokens
from heartvoice.gateway.options import PUBLIC_MODELS, GatewayOptions
from heartvoice.server.server import free_port
from tests.fakes.server import FakeServer, audio, final, report
from tests.support.callers import Certificates, heartvoice
from tests.support.gateways import running
from tests.support.waiting import wait_until


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """The command sets up its process's logging, and here that is ours."""
    root = logging.getLogger("heartvoice")
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


class Command:
    """A running `heartvoice gateway`."""

    def __init__(self, *options: str) -> None:
        command = [sys.executable, "-m", "heartvoice.cli.main", "gateway", "--json", *options]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        self.ready: dict[str, Any] = json.loads(line)

    def end(self, number: int = signal.SIGTERM) -> str:
        """Send a signal; returns what was said on standard error."""
        self.process.send_signal(number)
        return self.process.communicate(timeout=60)[1]


@pytest.fixture
def options(server: FakeServer, tmp_path: Path) -> list[str]:
    return ["--listen", "127.0.0.1:0", "--upstream", server.url, "--metrics-port", str(free_port())]


def test_a_gateway_serves_tokens_of_the_command_and_counts(
    server: FakeServer, options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens, log = tmp_path / "tokens.txt", tmp_path / "access.log"
    made = heartvoice("gateway", "token", "alice", "--tokens", str(tokens))
    assert made.exit_code == 0
    command = Command(*options, "--tokens", str(tokens), "--access-log", str(log))
    monkeypatch.setenv("HEARTVOICE_TOKEN", made.stdout.strip())
    try:
        assert command.ready["callers"] == "tokens"
        assert command.ready["models"] == list(PUBLIC_MODELS)
        with Client(command.ready["grpc"]) as client:
            assert client.song(lyrics="la").duration_s == 1.6

        def counted() -> bool:
            with urllib.request.urlopen(f"http://127.0.0.1:{options[-1]}/metrics") as page:
                labels = 'caller="alice",code="OK",method="ModelStreamInfer",model="song"'
                return f"heartvoice_gateway_calls_total{{{labels}}} 1.0" in page.read().decode()

        wait_until(counted, 60.0, "the call is not counted")
    finally:
        said = command.end(signal.SIGINT)
    assert command.process.returncode == 0, said
    line = json.loads(log.read_text())
    assert (line["caller"], line["model"], line["code"], line["requests"]) == ("alice", "song", "OK", 1)
    assert line["bytes_out"] > 600_000
    assert made.stdout.strip() not in said + log.read_text()


def test_a_token_is_printed_or_written_for_its_owner_alone(tmp_path: Path) -> None:
    tokens, own = tmp_path / "tokens.txt", tmp_path / "alice.token"
    assert heartvoice("gateway", "token", "alice", "--tokens", str(tokens), "-o", str(own)).stdout == ""
    assert own.stat().st_mode & 0o777 == 0o600
    assert Tokens(tokens).caller((("authorization", f"Bearer {own.read_text().strip()}"),)) == "alice"
    again = heartvoice("gateway", "token", "bob", "--tokens", str(tokens), "-o", str(own))
    assert again.exit_code == 1
    assert "alice.token: File exists" in again.stderr
    assert Tokens(tokens).names == ["alice"]


def test_a_stop_lets_calls_finish_and_a_second_one_ends_them(server: FakeServer, options: list[str]) -> None:
    begun = threading.Event()

    def slow(_: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        gone = threading.Event()
        context.add_callback(gone.set)
        yield audio(0, 48_000)
        begun.set()
        gone.wait(300)
        yield report(samples=48_000)
        yield final()

    server.song = slow
    command = Command(*options)
    with Client(command.ready["grpc"], retries=0) as client:
        stream = client.stream(lyrics="la")
        next(stream)
        command.process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            command.process.wait(0.5)
        command.process.send_signal(signal.SIGTERM)
        with pytest.raises(ModelUnavailableError):
            list(stream)
    said = command.process.communicate(timeout=60)[1]
    assert command.process.returncode == 0
    assert "stopping: 1 calls may finish within 300 s" in said
    assert "Traceback" not in said


def test_tokens_are_read_again_on_sighup(
    server: FakeServer, options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = tmp_path / "tokens.txt"
    heartvoice("gateway", "token", "alice", "--tokens", str(tokens))
    command = Command(*options, "--tokens", str(tokens))
    try:
        heartvoice("gateway", "token", "bob", "--tokens", str(tokens))
        command.process.send_signal(signal.SIGHUP)
        assert command.process.stderr is not None
        assert "2 callers" in command.process.stderr.readline()
    finally:
        command.end()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"listen": "0.0.0.0:8010"}, "expected --certificate and --private-key, and --tokens or --client-roots"),
        ({"listen": "0.0.0.0:8010", "tokens": Path("t")}, "not on loopback; expected --certificate and --private-key"),
        ({"listen": "[::]:8010"}, r"--listen: \[::\]:8010 is not on loopback"),
        ({"upstream": "triton:8001"}, "--upstream: triton:8001 is not on loopback, and the way there is not encrypted"),
        ({"certificate": Path("c")}, "--certificate, --private-key: expected both or neither, got one"),
        ({"client_roots": Path("c")}, "--client-roots: expected --certificate and --private-key, too"),
        ({"listen": "8010"}, "--listen: expected host:port, got '8010'"),
        ({"models": ("song", "nothing")}, "--models: expected some of song, .*, got 'nothing'"),
    ],
)  # fmt: skip
def test_what_is_unsafe_or_incomplete_is_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidRequestError, match=text):
        GatewayOptions(**options)


def test_what_is_unsafe_may_be_asked_for(certificates: Certificates) -> None:
    GatewayOptions(listen="0.0.0.0:8010", upstream="triton:8001", insecure=True)
    pair: dict[str, Any] = {"certificate": certificates.server, "private_key": certificates.server_key}
    GatewayOptions(listen="0.0.0.0:8010", client_roots=certificates.root, **pair)


def test_a_taken_port_is_named(server: FakeServer) -> None:
    with (
        running(server.url) as first,
        pytest.raises(ModelUnavailableError, match=f"--listen: cannot listen on {first.url}"),
        running(server.url, listen=first.url),
    ):
        pass


def test_a_taken_metrics_port_is_named(server: FakeServer) -> None:
    port = free_port()
    with (
        running(server.url, metrics_port=port),
        pytest.raises(ModelUnavailableError, match=f"--metrics-port: port {port} is not free"),
        running(server.url, metrics_port=port),
    ):
        pass


def test_errors_are_one_line(options: list[str]) -> None:
    result = heartvoice("gateway", *options, "--listen", "0.0.0.0:0")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: --listen: 0.0.0.0:0 is not on loopback")
    assert result.stderr.count("\n") == 1
    result = heartvoice("gateway", *options, "--tokens", "/no/such/file")
    assert result.exit_code == 2
    assert "tokens: cannot read '/no/such/file'" in result.stderr
