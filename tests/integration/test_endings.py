"""How jobs end before their time: cancelled, past their deadline, abandoned, orphaned, killed, refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heartvoice.client import AudioChunk, Client, CodesChunk
from heartvoice.client.messages import Song
from heartvoice.contracts.models import SONG
from heartvoice.errors import DeadlineError, ModelUnavailableError
from heartvoice.runtime.repository import Repository
from heartvoice.server.repository_api import UNLOAD
from heartvoice.server.server import EmbeddedServer
from heartvoice.server.workarounds import environment_folders
from heartvoice.serving import process_registry
from heartvoice.shm_regions import SHM, shm_prefix
from tests.fakes.networks import text
from tests.support.raw import OF_SONGS, Metrics, Raw
from tests.support.servers import kill_during, not_reloaded, running_server, wait_for_process
from tests.support.waiting import wait_until

LONG = {
    "lyrics": text("la la la"),
    "duration_s": np.array([240.0], np.float32),
    "min_duration_s": np.array([240.0], np.float32),
    "codec_window": np.array([93]),
}
LONG_WORDS: dict[str, object] = {"lyrics": "la la la", "duration_s": 240.0, "min_duration_s": 240.0, "codec_window": 93}
SHORT_WORDS: dict[str, object] = {"lyrics": "la", "duration_s": 1.0, "codec_steps": 1}


def idle(metrics: Metrics) -> bool:
    return metrics.value("heartvoice_jobs_live") == 0


def n_finished(metrics: Metrics) -> float:
    """Songs that were written to their end."""
    return metrics.value("heartvoice_jobs_total", model="heartmula", outcome="ok")


def assert_all_ends(metrics: Metrics, finished: float) -> None:
    """Every model lets go before its song is finished, and the LM stops counting frames."""
    wait_until(lambda: idle(metrics), 60.0, "jobs still live")
    assert n_finished(metrics) == finished, "a song was written to its end"
    frames = metrics.value("heartvoice_frames_total")
    time.sleep(0.1)
    assert metrics.value("heartvoice_frames_total") == frames


def test_closing_the_stream_cancels_every_stage(client: Client, metrics: Metrics) -> None:
    before, finished = metrics.value("heartvoice_jobs_total", outcome="CANCELLED"), n_finished(metrics)
    stream = client.stream(**LONG_WORDS)  # type: ignore[arg-type]
    next(stream)
    assert not idle(metrics)
    stream.close()
    assert_all_ends(metrics, finished)
    assert metrics.value("heartvoice_jobs_total", outcome="CANCELLED") >= before + 2, "song and heartmula"


def test_a_raw_cancel_reaches_the_lm(server: EmbeddedServer, metrics: Metrics) -> None:
    finished = n_finished(metrics)
    with Raw(server.url) as raw:
        call = raw.call("heartmula", {k: v for k, v in LONG.items() if k != "codec_window"})
        next(call)
        call.cancel()
        assert_all_ends(metrics, finished)


def test_deadline(client: Client, metrics: Metrics) -> None:
    finished = n_finished(metrics)
    with pytest.raises(DeadlineError):
        client.song(**LONG_WORDS, timeout_s=1.0)  # type: ignore[arg-type]
    assert_all_ends(metrics, finished)


def test_a_killed_client_frees_its_song(server: EmbeddedServer, metrics: Metrics) -> None:
    script = (
        "import sys; from heartvoice.client import Client\n"
        "stream = Client(sys.argv[1]).stream(lyrics='la', duration_s=240.0, min_duration_s=240.0, codec_window=93)\n"
        "for message in stream:"
        " print('x', flush=True)"
    )
    finished = n_finished(metrics)
    process = subprocess.Popen([sys.executable, "-c", script, server.url], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    assert not idle(metrics)
    process.kill()
    process.wait()
    process.stdout.close()
    assert_all_ends(metrics, finished)


def test_more_jobs_than_the_queue_are_refused_with_the_numbers(server: EmbeddedServer, metrics: Metrics) -> None:
    finished = n_finished(metrics)
    room = int(SONG.parameters["max_jobs"]) + int(SONG.parameters["max_queue"])
    with Raw(server.url) as raw:
        calls = [raw.call("song", LONG) for _ in range(room)]
        wait_until(lambda: metrics.value("heartvoice_jobs_live", model="song") == room, 60.0, "jobs not admitted")
        refused = list(raw.stream("song", LONG))
        assert len(refused) == 1
        assert (
            refused[0]["error"] == "UNAVAILABLE: song: 4 jobs running and 8 waiting, no room for more; try again later"
        )
        hopeless = list(raw.stream("song", LONG | {"lyrics": text("la " * 1300)}))
        assert "the limit is 3584" in hopeless[0]["error"], "told at once, not when its turn would have come"
        for call in calls:
            call.cancel()
        assert_all_ends(metrics, finished)
    with Client(server.url) as client:
        assert client.song(**SHORT_WORDS).audio.shape[0] == 2  # type: ignore[arg-type]


def test_jobs_beyond_max_jobs_wait_and_are_served(client: Client) -> None:
    done = []

    def work(seed: int) -> None:
        done.append(client.song(**SHORT_WORDS, seed=seed).report.seed)  # type: ignore[arg-type]

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == list(range(8))


@pytest.fixture(scope="module")
def victims(repository: Repository) -> Iterator[EmbeddedServer]:
    """A server to lose processes: each test leaves it with all of them again."""
    with running_server(repository.root, models=OF_SONGS) as running:
        yield running


@pytest.mark.parametrize("victim", ["heartmula", "heartcodec", "heartcodec_decoder"])
def test_a_killed_stage_fails_the_song_clearly_and_the_next_one_works(victims: EmbeddedServer, victim: str) -> None:
    with Client(victims.url, retries=0) as client:
        kill_during(victims, victim, client.stream(**LONG_WORDS))  # type: ignore[arg-type]
        assert client.song(**SHORT_WORDS).audio.shape[0] == 2  # type: ignore[arg-type]
    wait_until(lambda: idle(Metrics(victims.metrics_url)), 60.0, "jobs still live")


def test_a_caller_of_a_killed_model_can_be_unloaded(victims: EmbeddedServer) -> None:
    """Triton may keep a request of it for ever, and then never ends its process."""
    victim, caller = (victims.stub_pids()[name] for name in ("heartcodec_decoder", "heartcodec"))
    with Client(victims.url) as client:
        for message in client.stream("la la la", duration_s=30.0, min_duration_s=30.0, codec_window=93, codec_steps=1):
            if isinstance(message, AudioChunk) and not message.start:
                os.kill(victim, signal.SIGKILL)
        client.song(**SHORT_WORDS)  # type: ignore[arg-type]
        victims._api.call(UNLOAD, "heartcodec", 60.0)
        wait_for_process(victims, "heartcodec", caller)
        assert client.song(**SHORT_WORDS).audio.shape[0] == 2  # type: ignore[arg-type]


def test_a_killed_orchestrator_frees_its_children_and_fails_its_caller(victims: EmbeddedServer) -> None:
    old, metrics = victims.stub_pids()["song"], Metrics(victims.metrics_url)
    with Client(victims.url, retries=0, stall_timeout_s=4.0) as client:
        stream = client.stream(**LONG_WORDS)  # type: ignore[arg-type]
        next(stream)
        with not_reloaded(victims):
            os.kill(old, signal.SIGKILL)
            # The gauge of the killed process itself stays: it is gone with its numbers.
            wait_until(lambda: metrics.value("heartvoice_jobs_live", model="heartmula") == 0, 60.0, "the LM goes on")
            with pytest.raises(ModelUnavailableError, match="song"):
                for _ in stream:
                    pass
        wait_for_process(victims, "song", old)
        assert client.song(**SHORT_WORDS).audio.shape[0] == 2  # type: ignore[arg-type]


LOST: dict[str, object] = {
    "lyrics": "la la la", "duration_s": 60.0, "min_duration_s": 60.0, "codec_window": 93, "codec_steps": 1,
    "return_codes": True,
}  # fmt: skip
"""A song long enough to lose a process in."""


@pytest.fixture(scope="module")
def undisturbed(victims: EmbeddedServer) -> Song:
    with Client(victims.url) as client:
        return client.song(**LOST)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("victim", "begun"), [("heartmula", CodesChunk), ("heartcodec", AudioChunk), ("song", AudioChunk)]
)
def test_a_killed_process_costs_time_and_not_one_sample(
    victims: EmbeddedServer, undisturbed: Song, victim: str, begun: type[AudioChunk | CodesChunk]
) -> None:
    old = victims.stub_pids()[victim]
    with Client(victims.url, stall_timeout_s=4.0) as client:
        messages: list[Any] = []
        for message in client.stream(**LOST):  # type: ignore[arg-type]
            if isinstance(message, begun) and not message.start:
                os.kill(old, signal.SIGKILL)
            messages.append(message)
    wait_for_process(victims, victim, old)
    assert messages.pop().attempts > 1, "nothing was lost: the test shows nothing"
    for kind, expected in ((AudioChunk, undisturbed.audio), (CodesChunk, undisturbed.codes)):
        chunks = [message for message in messages if isinstance(message, kind)]
        assert np.array_equal(np.concatenate([chunk.payload for chunk in chunks], axis=1), expected)  # type: ignore[arg-type]
        ends = np.cumsum([chunk.length for chunk in chunks]).tolist()
        assert [chunk.start for chunk in chunks] == [0, *ends[:-1]]


def test_a_killed_server_leaves_nothing_after_the_next_start(new_server: Callable[..., EmbeddedServer]) -> None:
    first = new_server(models=OF_SONGS)
    prefix = shm_prefix(first._owner, first._run)
    folders = [Path(name) for name in environment_folders.recorded(first._folder())]
    assert folders
    assert all(folder.is_dir() for folder in folders)
    with Client(first.url, retries=0) as client:
        stream = client.stream(**LONG_WORDS)  # type: ignore[arg-type]
        next(stream)
        pids = [first.pid, *first.stub_pids().values()]
        os.kill(first.pid, signal.SIGKILL)
        with pytest.raises(ModelUnavailableError):
            for _ in stream:
                pass
    wait_until(lambda: not any(process_registry.is_alive(pid) for pid in pids[1:]), 60.0, "stubs live on")
    assert list(SHM.glob(f"{prefix}*")), "nothing was left that could be cleaned up: the test shows nothing"
    first.stop()
    second = new_server(models=("heartcodec_decoder",))
    assert not list(SHM.glob(f"{prefix}*"))
    assert not any(folder.exists() for folder in folders)
    n_processes = len(second.stub_pids()) + 1  # and the model `heartvoice`
    assert len(list(SHM.glob(f"{shm_prefix(second._owner, second._run)}*"))) == n_processes


def test_stop_cancels_songs_in_flight(new_server: Callable[..., EmbeddedServer]) -> None:
    server = new_server(models=("heartmula",))
    with Raw(server.url) as raw:
        call = raw.call("heartmula", {k: v for k, v in LONG.items() if k != "codec_window"})
        next(call)
        server.stop(cancel=True)
        errors = [response.error_message for response in call if response.error_message]
        assert len(errors) == 1
        assert errors[0].startswith("CANCELLED: ")


def test_stop_may_let_songs_finish(victims: EmbeddedServer) -> None:
    """The module's server, in its last test."""
    frames = 30 * 12.5
    with Client(victims.url) as client:
        stream = client.stream(lyrics="la", duration_s=30.0, min_duration_s=30.0, codec_window=93)
        n_samples = next(stream).audio.shape[1]  # type: ignore[union-attr]
        stopper = threading.Thread(target=lambda: victims.stop(cancel=False))
        stopper.start()
        for message in stream:
            n_samples += message.audio.shape[1] if hasattr(message, "audio") else 0
        stopper.join()
    assert n_samples == frames * 3840
