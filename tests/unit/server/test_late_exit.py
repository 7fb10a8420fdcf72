"""The end of a server whose models have ended, or do not end."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from heartvoice.server.workarounds.late_exit import has_callers, wait


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "300"]) as process:
        yield process
        process.kill()


@pytest.fixture
def model() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "300"]) as process:
        yield process
        process.kill()


def test_a_server_without_models_and_callers_is_not_waited_for(sleeper: subprocess.Popen[bytes]) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert wait(sleeper, lambda: {"svc": gone.pid}, lambda: False, 300.0)
    assert sleeper.poll() is None, "its supervisor kills it"


def test_a_server_that_ends_is_not_asked_for_its_callers() -> None:
    with subprocess.Popen(["true"]) as server:
        assert wait(server, dict, lambda: True, 300.0)


def test_a_caller_who_may_still_read_is_waited_for(sleeper: subprocess.Popen[bytes]) -> None:
    callers = iter([True, True, True, False])
    assert wait(sleeper, dict, lambda: next(callers), 300.0)
    assert next(callers, None) is None
    assert not wait(sleeper, dict, lambda: True, 0.2)


def test_a_model_that_does_not_end_is_killed(
    sleeper: subprocess.Popen[bytes], model: subprocess.Popen[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert wait(sleeper, lambda: {"svc": model.pid}, lambda: False, 300.0, models_s=0.0)
    assert model.wait(60) == -9
    assert caplog.messages == ["svc did not end within 0 s and is killed"]


@pytest.mark.parametrize("kind", ["tcp", "tcp6", "unix"])
def test_callers_are_those_who_are_connected(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    family = {"tcp": socket.AF_INET, "tcp6": socket.AF_INET6, "unix": socket.AF_UNIX}[kind]
    with socket.socket(family) as server, socket.socket(family) as caller:
        try:
            server.bind(str(path) if kind == "unix" else ("::1" if kind == "tcp6" else "127.0.0.1", 0))
        except OSError:
            pytest.skip("no IPv6 here")
        server.listen()
        port = 0 if kind == "unix" else server.getsockname()[1]

        def connected() -> bool:
            return has_callers(os.getpid(), port, path if kind == "unix" else None)

        assert not connected()
        caller.connect(server.getsockname())
        accepted, _ = server.accept()
        assert connected()
        accepted.close()
        caller.close()
        assert not connected()


def test_who_is_connected_to_a_process_that_has_ended_is_unknown() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert has_callers(gone.pid, 8001)
