"""The command `serve` with jobs in flight: killed, and asked to stop."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from heartvoice import shm_regions
from heartvoice.client import Client
from heartvoice.errors import ModelUnavailableError, RequestCancelledError
from heartvoice.runtime.repository import Repository
from tests.support.faults.jobs import Running, song
from tests.support.faults.recorder import Recorder
from tests.support.raw import Metrics, start_cli
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(240)


def remains(owner: str) -> list[str]:
    folders = Path(tempfile.gettempdir()).glob("heartvoice-run-*")
    regions = [path.name for path in shm_regions.SHM.glob(f"{shm_regions.shm_prefix(owner)}*")]
    return regions + [f.name for f in folders if (f / "owner").is_file() and (f / "owner").read_text() == owner]


def live(metrics_url: object) -> bool:
    return Metrics(str(metrics_url)).value("heartvoice_jobs_live", model="song") > 0


@pytest.mark.parametrize("mode", ["finish", "cancel"])
def test_sigterm_with_a_job_in_flight(repository: Repository, record: Recorder, mode: str) -> None:
    process, ready = start_cli(repository.root, "--on-stop", mode)
    owner = shm_regions.process_identity(process.pid)
    with Client(str(ready["grpc"]), retries=0) as client:
        expected = song(client)
        job = Running(
            lambda: song(client) if mode == "finish" else song(client, duration_s=240.0, min_duration_s=240.0)
        )
        wait_until(lambda: live(ready["metrics"]), 60.0, "no job")
        process.send_signal(signal.SIGTERM)
        fell = time.monotonic()
        wait_until(lambda: not is_accepting(client), 60.0, "it still takes new jobs")
        job.wait()
    _, errors = process.communicate(timeout=60)
    took = time.monotonic() - fell
    assert process.returncode == 0, errors
    if mode == "finish":
        assert np.array_equal(job.samples, expected)
    else:
        assert isinstance(job.error, RequestCancelledError)
    assert not remains(owner)
    record(
        f"SIGTERM to serve with a song in flight, --on-stop {mode} (stopped after {took:.1f} s)",
        saw=job.error or "the whole song, right", after_s=job.ended_at - fell,
        others="new jobs: UNAVAILABLE, the server is stopping", left=remains(owner),
    )  # fmt: skip


def is_accepting(client: Client) -> bool:
    try:
        song(client, duration_s=1.0, min_duration_s=1.0)
    except ModelUnavailableError:
        return False
    return True


def test_kill_9_of_serve_with_a_job_in_flight(repository: Repository, record: Recorder) -> None:
    process, ready = start_cli(repository.root)
    owner = shm_regions.process_identity(process.pid)
    with Client(str(ready["grpc"]), retries=0) as client:
        job = Running(lambda: song(client, duration_s=240.0, min_duration_s=240.0))
        wait_until(lambda: live(ready["metrics"]), 60.0, "no job")
        os.kill(process.pid, signal.SIGKILL)
        fell = time.monotonic()
        job.wait()
        process.communicate()
    assert isinstance(job.error, ModelUnavailableError)
    assert remains(owner), "nothing was left that could be cleaned up: the test shows nothing"
    again, ready = start_cli(repository.root)
    try:
        assert not remains(owner), "the next start cleans up"
        with Client(str(ready["grpc"])) as client:
            song(client, duration_s=1.0, min_duration_s=1.0)
        recovered = time.monotonic() - fell
    finally:
        again.send_signal(signal.SIGINT)
        again.communicate(timeout=60)
    record(
        "kill -9 of serve with a song in flight (recovery: serve started again at once)", saw=job.error,
        after_s=job.ended_at - fell, others="all jobs of the server fail alike", recovery_s=recovered,
    )  # fmt: skip
