"""Real servers for tests that do not check the shutdown."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from heartvoice.client import Client
from heartvoice.errors import ModelUnavailableError
from heartvoice.server.options import ServerOptions
from heartvoice.server.server import EmbeddedServer, free_port
from tests.support.waiting import wait_until


def end(server: EmbeddedServer) -> None:
    """Kill the server and clean up: Triton's own shutdown waits for seconds to unload.

    Where coverage is measured, the models' processes end by themselves: only then do they write what they reached.
    """
    if server.poll() is None and "COVERAGE_PROCESS_CONFIG" not in os.environ:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
    server.stop()


@contextmanager
def running_server(root: Path, **options: object) -> Iterator[EmbeddedServer]:
    """Start a server on free ports; `options` are those of `ServerOptions`."""
    server = EmbeddedServer(ServerOptions(root, free_port(), free_port(), **options))  # type: ignore[arg-type]
    server.start()
    try:
        yield server
    finally:
        end(server)


@contextmanager
def not_reloaded(server: EmbeddedServer) -> Iterator[None]:
    """Inside, the server loads no model anew: what dies is missed, however slow the machine is."""
    with server._reloading:
        yield


def kill_during(server: EmbeddedServer, victim: str, stream: Iterator[object]) -> None:
    """Kill a model's process after a stream's first message: the stream fails by its name, and it comes back."""
    old = server.stub_pids()[victim]
    wait_for_connection(server)
    next(stream)
    with not_reloaded(server):
        os.kill(old, signal.SIGKILL)
        with pytest.raises(ModelUnavailableError, match=victim):
            for _ in stream:
                pass
    wait_for_process(server, victim, old)


def wait_for_process(server: EmbeddedServer, model: str, old: int) -> None:
    """Wait until another process than `old` serves the model, after a reload or a restart of the whole server."""

    def served() -> bool:
        if server.stub_pids().get(model, old) == old:
            return False
        with Client(server.url, retries=0) as client:
            return client.server_ready() and client.model_ready(model)

    wait_until(served, 100.0, f"{model} is not served again")


def wait_for_connection(server: EmbeddedServer) -> None:
    """Wait until the server takes a new connection: while it loads a model, it may leave one without an answer."""

    def accepted() -> bool:
        with Client(server.url, retries=0) as client:
            return client.server_ready()

    wait_until(accepted, 100.0, "no new connection is taken")
