"""Processes that die or hang in the middle of a job."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import numpy as np
import pytest

from heartvoice.client import Client
from heartvoice.contracts.models import LOADED
from heartvoice.errors import DeadlineError, ModelUnavailableError
from heartvoice.server.server import EmbeddedServer
from heartvoice.serving import process_registry
from tests.support.faults.jobs import HANG_S, JOBS, Running, cover, left_behind, recovery_s, song, wait_until_busy
from tests.support.faults.recorder import Recorder
from tests.support.waiting import wait_until

OF_SONGS_ONLY = {"song", "heartmula", "heartcodec", "heartcodec_decoder"}
AGAIN: dict[str, Callable[[Client], object]] = {
    "song": lambda client: song(client, duration_s=2.0, min_duration_s=2.0),
    "cover": lambda client: cover(client, seconds=2.0),
    "render": lambda client: client.render(lyrics="la", duration_s=1.0, timeout_s=15.0),
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("victim", LOADED)
def test_a_killed_process_fails_its_own_jobs_by_name_and_no_others(
    server: EmbeddedServer, client: Client, alone: Callable[[str], np.ndarray], record: Recorder, victim: str
) -> None:
    kind = "render" if victim == "render" else "song" if victim in OF_SONGS_ONLY else "cover"
    other = "cover" if victim in OF_SONGS_ONLY else "song"
    expected, seed = alone(other), 1 + LOADED.index(victim)
    restarts, pid = server.restarts.get(victim, 0), server.stub_pids()[victim]
    bystander = Running(lambda: JOBS[other](client, 0))
    job = Running(lambda: JOBS[kind](client, seed))
    assert wait_until_busy(pid, job.ended), f"{victim} had nothing to do"
    os.kill(pid, signal.SIGKILL)
    fell = time.monotonic()
    job.wait()
    recovered = recovery_s(lambda: AGAIN[kind](client), fell)
    assert np.array_equal(bystander.wait().samples, expected), "another job was hurt"
    if job.error is None:  # back in time: state travels with the requests
        assert np.array_equal(job.samples, JOBS[kind](client, seed))
    elif victim == "render":  # Triton never answers a unary call of a killed process: its deadline does
        assert isinstance(job.error, DeadlineError)
    else:
        assert isinstance(job.error, ModelUnavailableError)
        assert victim in str(job.error)
    assert server.restarts[victim] == restarts + 1
    left = left_behind(server)
    record(
        f"kill -9 of {victim} during a {kind}", saw=job.error or "the whole result, right", after_s=job.ended_at - fell,
        others=f"{other}: same samples as alone", recovery_s=recovered, left=left,
    )  # fmt: skip
    assert not left


@pytest.mark.timeout(180)
@pytest.mark.parametrize("number", [signal.SIGSTOP], ids=["SIGSTOP"])
def test_a_hung_process_is_replaced(
    server: EmbeddedServer, client: Client, alone: Callable[[str], np.ndarray], record: Recorder, number: signal.Signals
) -> None:
    victim = "heartcodec"
    expected = alone("cover")
    restarts, pid = server.restarts.get(victim, 0), server.stub_pids()[victim]
    bystander = Running(lambda: cover(client))
    job = Running(lambda: song(client, seed=40))
    assert wait_until_busy(pid, job.ended)
    os.kill(pid, number)
    fell = time.monotonic()
    job.wait()
    assert isinstance(job.error, ModelUnavailableError)
    assert victim in str(job.error)
    recovered = recovery_s(lambda: AGAIN["song"](client), fell)
    assert recovered > HANG_S / 2, "it was replaced before it can have been taken for hung"
    assert server.restarts[victim] == restarts + 1
    assert np.array_equal(bystander.wait().samples, expected), "another job was hurt"
    left = left_behind(server)
    record(
        f"SIGSTOP of {victim} during a song (hang_s {HANG_S:g})", saw=job.error, after_s=job.ended_at - fell,
        others="cover: same samples as alone", recovery_s=recovered, left=left,
    )  # fmt: skip
    assert not left


def _started_by_hand(server: EmbeddedServer, new_server: Callable[..., EmbeddedServer], fell: float) -> float:
    """Stop what is left, start another server, and return the seconds until it works."""
    wait_until(lambda: server.poll() == -signal.SIGKILL, 60.0, "the server still lives")
    pids, run = list(server.stub_pids().values()), server._run
    server.stop()
    wait_until(lambda: not any(process_registry.is_alive(pid) for pid in pids), 60.0, "models' processes live on")
    assert run is not None
    assert not run.exists()
    with Client(new_server(models=tuple(OF_SONGS_ONLY)).url) as client:
        return recovery_s(lambda: AGAIN["song"](client), fell)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["kill -9", "SIGSTOP"])
def test_a_server_that_is_killed_ends_and_one_that_hangs_is_started_anew(
    new_server: Callable[..., EmbeddedServer], record: Recorder, number: signal.Signals
) -> None:
    server = new_server(models=tuple(OF_SONGS_ONLY), hang_s=3.0)
    pid = server.pid
    with Client(server.url, retries=0, stall_timeout_s=60.0) as client:
        job = Running(lambda: song(client, duration_s=240.0, min_duration_s=240.0))
        wait_until_busy(server.stub_pids()["heartmula"], job.ended)
        os.kill(server.pid, number)
        fell = time.monotonic()
        job.wait()
    assert isinstance(job.error, ModelUnavailableError)
    if number == signal.SIGSTOP:
        wait_until(lambda: server.pid != pid, 100.0, "it is not started anew")
        with Client(server.url) as client:
            recovered = recovery_s(lambda: AGAIN["song"](client), fell)
    else:
        recovered = _started_by_hand(server, new_server, fell)
    record(
        f"{number.name} of the server itself during a song", saw=job.error, after_s=job.ended_at - fell,
        others="all jobs of the server fail alike", recovery_s=recovered,
    )  # fmt: skip
