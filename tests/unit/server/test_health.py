"""When a model's process is taken for dead or hung, and how often it is mended."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from heartvoice.server import health
from heartvoice.server.health import ServerProbe
from heartvoice.server.workarounds import abandoned_responses
from heartvoice.server.workarounds.abandoned_responses import AbandonedResponses
from heartvoice.server.workarounds.dead_stubs import DIED, MAX_RETRY_S, StubHealth
from heartvoice.server.workarounds.lingering_processes import LINGER_S, LingeringProcesses
from heartvoice.serving import process_registry
from heartvoice.serving.live_jobs import LiveJobs
from heartvoice.serving.workarounds import unread_responses
from heartvoice.serving.workarounds.heartbeat import Heartbeat
from tests.support.clock import Clock

HANG_S = 10.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def stub() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def stubs(tmp_path: Path, clock: Clock) -> StubHealth:
    (tmp_path / "beats").mkdir()
    return StubHealth(tmp_path, os.getpid(), HANG_S, clock=clock)


def test_a_process_that_counts_works(
    stubs: StubHealth, clock: Clock, stub: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    beat = Heartbeat("svc", tmp_path)
    for _ in range(5):
        beat()
        assert stubs.diagnose("svc", stub.pid) is None
        clock.now += HANG_S - 1


def test_a_process_that_stops_counting_hangs(
    stubs: StubHealth, clock: Clock, stub: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    beat = Heartbeat("svc", tmp_path)
    beat()
    assert stubs.diagnose("svc", stub.pid) is None
    clock.now += HANG_S + 1
    assert stubs.diagnose("svc", stub.pid) == "gave no sign of life for 11 s"
    beat()
    assert stubs.diagnose("svc", stub.pid) is None, "it was only slow"


def test_a_process_of_which_nothing_is_known_does_not_hang(
    stubs: StubHealth, clock: Clock, stub: subprocess.Popen[bytes]
) -> None:
    assert stubs.diagnose("svc", stub.pid) is None
    clock.now += 10 * HANG_S
    assert stubs.diagnose("svc", stub.pid) is None


def test_a_dead_process_is_dead_also_if_another_has_its_number(stubs: StubHealth) -> None:
    assert stubs.diagnose("svc", os.getppid()) == DIED, "no child of the server"
    process = subprocess.Popen(["true"])
    process.wait()
    assert stubs.diagnose("svc", process.pid) == DIED


@pytest.fixture
def lingering(tmp_path: Path, clock: Clock, stub: subprocess.Popen[bytes]) -> LingeringProcesses:
    (tmp_path / "pids").mkdir()
    (tmp_path / "pids" / "svc").write_text(str(stub.pid))
    return LingeringProcesses(tmp_path, clock=clock)


def test_a_process_that_lingers_without_jobs_is_killed(
    lingering: LingeringProcesses, clock: Clock, stub: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    jobs = LiveJobs("svc", tmp_path)
    jobs.set(1, [])
    lingering.unloading("svc")
    LiveJobs("svc", tmp_path).set(1, [])  # of the process that takes its place
    clock.now += 2 * LINGER_S
    lingering.kill()
    jobs.set(0, [])
    clock.now += LINGER_S
    lingering.kill()
    assert stub.poll() is None
    clock.now += 0.1
    lingering.kill()
    assert stub.wait(60) == -signal.SIGKILL


@pytest.mark.parametrize("known", [True, False])
def test_a_process_that_is_in_use_or_has_ended_is_left_alone(
    lingering: LingeringProcesses, clock: Clock, stub: subprocess.Popen[bytes], known: bool
) -> None:
    if known:
        lingering.unloading("svc")
        stub.kill()
        stub.wait()
        lingering.kill()
    clock.now += 2 * LINGER_S
    lingering.kill()
    assert stub.poll() == (-signal.SIGKILL if known else None)


def test_failed_reloads_are_tried_again_less_and_less_often(stubs: StubHealth, clock: Clock) -> None:
    waits = []
    for _ in range(10):
        assert stubs.diagnose("svc", 0) == DIED
        waits.append(stubs.failed("svc"))
        clock.now += waits[-1] - 0.01
        assert stubs.diagnose("svc", 0) is None, "not due yet"
        clock.now += 0.02
    assert waits[:3] == [0.5, 1.0, 2.0]
    assert waits[-1] == MAX_RETRY_S


class _Server(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    def __init__(self) -> None:
        self.answering = threading.Event()

    def ServerLive(self, request: object, context: object) -> object:
        self.answering.wait(300)
        return service_pb2.ServerLiveResponse(live=True)


def test_a_server_that_leaves_a_question_open_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "PROBE_S", 0.0)
    servicer, server = _Server(), grpc.server(futures.ThreadPoolExecutor(2))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    probe = ServerProbe(f"127.0.0.1:{port}", 0.3)
    try:
        assert probe.hung()
        servicer.answering.set()
        assert not probe.hung()
    finally:
        probe.close()
        server.stop(0)
    gone = ServerProbe(f"127.0.0.1:{port}", 0.3)
    assert not gone.hung(), "a server that is gone does not hang"
    gone._answered -= 0.4
    assert gone.hung(), "its process is alive, or nobody would ask: it takes no connections"
    gone.restart()
    assert not gone.hung()
    gone.close()


@pytest.fixture
def full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose server refused a job, for holding more than 100 bytes."""
    monkeypatch.setenv(process_registry.VARIABLE, str(tmp_path))
    unread_responses.report_full(100)
    return tmp_path


class Held:
    """What a server holds and does, and the time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.n_bytes, self.jobs, self.now = 101, 0, 0.0
        monkeypatch.setattr(abandoned_responses, "private_bytes", lambda _pid: self.n_bytes)

    def watch(self, run: Path) -> AbandonedResponses:
        return AbandonedResponses(run, 1, lambda: self.jobs, clock=lambda: self.now)


def test_answers_that_nobody_reads_are_given_time(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(monkeypatch)
    watched = held.watch(full)
    assert not watched.stuck()
    held.now = abandoned_responses.UNREAD_S - 0.1
    assert not watched.stuck()
    held.now = abandoned_responses.UNREAD_S
    assert watched.stuck()


def test_jobs_under_way_are_not_disturbed(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(monkeypatch)
    watched = held.watch(full)
    assert not watched.stuck()
    held.now, held.jobs = abandoned_responses.UNREAD_S, 1
    assert not watched.stuck()
    held.jobs = 0
    assert not watched.stuck(), "the time begins anew"


def test_a_refusal_is_forgotten_when_the_answers_were_read(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(monkeypatch)
    watched = held.watch(full)
    held.n_bytes = 100
    assert not watched.stuck()
    held.n_bytes, held.now = 101, 1000.0
    assert not watched.stuck()
    assert unread_responses.full(full) is None, "no job was refused since"
