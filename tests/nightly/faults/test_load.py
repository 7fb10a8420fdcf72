"""More callers than places, callers that leave the queue, and models that are reloaded meanwhile."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from heartvoice.client import Client
from heartvoice.contracts.models import SONG
from heartvoice.errors import ModelUnavailableError
from heartvoice.server.server import EmbeddedServer
from tests.fakes.networks import text
from tests.support.faults.jobs import Running, cover, left_behind, recovery_s, song
from tests.support.faults.recorder import Recorder
from tests.support.raw import Metrics, Raw, outputs
from tests.support.waiting import wait_until

MAX_JOBS, MAX_QUEUE = int(SONG.parameters["max_jobs"]), int(SONG.parameters["max_queue"])
ROOM = MAX_JOBS + MAX_QUEUE
FULL = f"song: {MAX_JOBS} jobs running and {MAX_QUEUE} waiting, no room for more; try again later"


@pytest.mark.timeout(180)
def test_fifty_callers_are_served_or_refused_and_none_is_late(server: EmbeddedServer, record: Recorder) -> None:
    began = time.monotonic()
    jobs = []
    clients = [Client(server.url, retries=0) for _ in range(50)]
    for index, client in enumerate(clients):
        jobs.append(Running(lambda c=client, s=index: song(c, s, duration_s=4.0, min_duration_s=4.0)))  # type: ignore[misc]
    errors = [job.wait().error for job in jobs]
    for client in clients:
        client.close()
    refused = [error for error in errors if error is not None]
    assert all(isinstance(error, ModelUnavailableError) and str(error) == FULL for error in refused), refused
    assert len(jobs) - len(refused) >= ROOM
    assert refused, "nobody was refused: the test shows nothing"
    served = [(index, job.samples) for index, job in enumerate(jobs) if job.error is None]
    with Client(server.url) as client:
        for index, made in served[:: max(1, len(served) // 3)]:
            assert np.array_equal(made, song(client, index, duration_s=4.0, min_duration_s=4.0))
    left = left_behind(server)
    record(
        f"50 callers at once, {MAX_JOBS} places and a queue of {MAX_QUEUE}",
        saw=f"{len(served)} served, {len(refused)} refused: {FULL}", after_s=time.monotonic() - began,
        others="served songs: same samples as alone", left=left,
    )  # fmt: skip
    assert not left


@pytest.mark.timeout(120)
def test_waiting_jobs_are_served_in_their_order(server: EmbeddedServer) -> None:
    metrics, began, lock = Metrics(server.metrics_url), dict[int, float](), threading.Lock()

    def read(index: int, call: object) -> None:
        for message in call:  # type: ignore[attr-defined]
            event = outputs(message.infer_response).get("EVENT")
            if event is not None and json.loads(event[0])["stage"] != "queued":
                with lock:
                    began.setdefault(index, time.monotonic())

    with Raw(server.url) as raw:
        readers = []
        for index in range(ROOM):
            inputs = {"lyrics": text("la"), "events": np.array([True]), "codec_window": np.array([93])}
            seconds = np.array(
                [30.0 if index < MAX_JOBS else 2.0], np.float32
            )  # the first ones keep the others waiting
            call = raw.call("song", inputs | {"duration_s": seconds, "min_duration_s": seconds}, timeout=90)
            readers.append(threading.Thread(target=read, args=(index, call)))
            readers[-1].start()
            wait_until(
                lambda n=index: metrics.value("heartvoice_jobs_live", model="song") == n + 1,  # type: ignore[misc]
                60.0, "not admitted",
            )  # fmt: skip
        for reader in readers:
            reader.join()
    # Jobs that are taken up at the same moment may report in any order; so many run at once.
    assert len(began) == ROOM
    for index in range(ROOM - MAX_JOBS):
        assert began[index] < began[index + MAX_JOBS], began


def test_a_caller_that_leaves_the_queue_frees_its_place_at_once(server: EmbeddedServer, record: Recorder) -> None:
    metrics = Metrics(server.metrics_url)
    seconds = np.array([240.0], np.float32)
    inputs = {"lyrics": text("la"), "duration_s": seconds, "min_duration_s": seconds}
    with Raw(server.url) as raw:
        running = [raw.call("song", inputs, timeout=90) for _ in range(MAX_JOBS)]
        wait_until(lambda: metrics.value("heartvoice_jobs_live", model="song") == MAX_JOBS, 60.0, "not admitted")
        waiting = [raw.call("song", inputs, timeout=90) for _ in range(MAX_QUEUE)]
        wait_until(lambda: metrics.value("heartvoice_jobs_live", model="song") == ROOM, 60.0, "not admitted")
        for call in waiting:
            call.cancel()
        took = wait_until(
            lambda: metrics.value("heartvoice_jobs_live", model="song") == MAX_JOBS, 60.0, "they keep their places"
        )
        for call in running:
            call.cancel()
        wait_until(lambda: metrics.value("heartvoice_jobs_live") == 0, 60.0, "jobs still live")
    record(f"{MAX_QUEUE} callers cancel while they wait", saw="CANCELLED", recovery_s=took, left=left_behind(server))


@pytest.mark.timeout(180)
def test_a_model_reloaded_under_load_fails_no_job_but_its_own(
    server: EmbeddedServer, client: Client, alone: Callable[[str], np.ndarray], record: Recorder
) -> None:
    expected, expected_cover = alone("song"), alone("cover")
    bystander = Running(lambda: cover(client))
    jobs = [Running(lambda: song(client)) for _ in range(3)]
    wait_until(lambda: Metrics(server.metrics_url).value("heartvoice_jobs_live", model="heartcodec") > 0, 60.0, "idle")
    began = time.monotonic()
    server.reload("heartcodec")
    took = time.monotonic() - began
    recovered = recovery_s(lambda: song(client, duration_s=1.0, min_duration_s=1.0), began)
    errors = []
    for job in jobs:
        if job.wait().error is None:
            assert np.array_equal(job.samples, expected)
        else:
            assert isinstance(job.error, ModelUnavailableError)
            assert "heartcodec" in str(job.error)
            errors.append(str(job.error))
    assert np.array_equal(bystander.wait().samples, expected_cover), "another job was hurt"
    left = left_behind(server)
    record(
        f"heartcodec unloaded and loaded under 3 songs (took {took:.1f} s)",
        saw=f"{3 - len(errors)} songs right; {len(errors)} errors: {errors[0] if errors else 'none'}",
        others="cover: same samples as alone", recovery_s=recovered, left=left,
    )  # fmt: skip
    assert not left
