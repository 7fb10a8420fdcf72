"""A crashed Triton is restarted, both while it serves and while it loads a model."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from heartvoice import shm_regions
from heartvoice.client import Client
from heartvoice.errors import HeartvoiceError
from heartvoice.runtime.repository import Repository
from heartvoice.server.options import ServerOptions
from heartvoice.server.server import EmbeddedServer, free_port
from heartvoice.server.workarounds import crash_restarts
from tests.support.raw import OF_SONGS
from tests.support.servers import end
from tests.support.waiting import wait_until

LOADED_SLOWLY = """
import pathlib, time
flag = pathlib.Path({flag!r})
if flag.exists():
    flag.unlink()
    time.sleep(3)
"""


@pytest.fixture
def served(repository: Repository, tmp_path: Path) -> Iterator[EmbeddedServer]:
    log = tmp_path / "server.log"
    started = EmbeddedServer(ServerOptions(repository.root, free_port(), free_port(), models=OF_SONGS, log_path=log))
    started.start()
    yield started
    end(started)


def answers(url: str) -> bool:
    with Client(url, retries=0) as client:
        return client.server_ready()


def song(url: str) -> np.ndarray:
    with Client(url, retries=0) as client:
        made = client.song("la la", duration_s=4.0, min_duration_s=4.0, codec_steps=2, seed=3)
        return made.audio


def test_a_server_that_crashes_in_the_middle_of_a_song_serves_the_next(
    served: EmbeddedServer, caplog: pytest.LogCaptureFixture
) -> None:
    expected, pid = song(served.url), served.pid
    with Client(served.url, retries=0) as client:
        stream = client.stream("la", duration_s=60.0, min_duration_s=60.0, codec_window=93)
        next(stream)
        os.kill(pid, signal.SIGABRT)
        with pytest.raises(HeartvoiceError):
            list(stream)
    assert served.poll() is None, "a crash is no end"
    wait_until(lambda: served.pid != pid and answers(served.url), 60.0, "not started anew")
    assert "Triton crashed (SIGABRT), its jobs have failed; starting it anew" in caplog.text
    assert np.array_equal(song(served.url), expected)
    wait_until(lambda: set(served.stub_pids()) == set(OF_SONGS), 60.0, "a model is missing")
    victim = served.stub_pids()["heartcodec"]
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: served.restarts.get("heartcodec") == 1, 60.0, "the new server's processes are not watched")


def test_one_that_crashes_too_often_stays_down(served: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crash_restarts, "MAX_CRASHES", 0)
    os.kill(served.pid, signal.SIGSEGV)
    wait_until(lambda: served.poll() == -signal.SIGSEGV, 60.0, "it does not end")


def test_one_that_was_killed_stays_down(served: EmbeddedServer) -> None:
    os.kill(served.pid, signal.SIGKILL)
    wait_until(lambda: served.poll() == -signal.SIGKILL, 60.0, "it does not end")


def test_a_stop_while_it_starts_anew_leaves_nothing(served: EmbeddedServer) -> None:
    pid, run = served.pid, served._run
    assert run is not None
    prefix = shm_regions.shm_prefix(served._owner, run)
    os.kill(pid, signal.SIGABRT)
    wait_until(lambda: served.pid != pid, 60.0, "not started anew")
    served.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(served.pid, 0)
    assert not list(shm_regions.SHM.glob(f"{prefix}*"))
    assert not run.exists()


def test_one_that_crashes_while_it_reloads_a_model_is_restarted(
    repository: Repository, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The fault of `heartvoice.server.workarounds.load_crash`; a signal stands in for it."""
    root = Path(shutil.copytree(repository.root, tmp_path / "repository"))
    flag, model = root / "flag", root / "heartcodec" / "1" / "model.py"
    model.write_text(LOADED_SLOWLY.format(flag=str(flag)) + model.read_text())
    started = EmbeddedServer(ServerOptions(root, free_port(), free_port(), models=("heartcodec",)))
    started.start()
    try:
        pid = started.pid
        flag.touch()
        os.kill(started.stub_pids()["heartcodec"], signal.SIGKILL)
        wait_until(lambda: not flag.exists(), 60.0, "the model is not loaded again")
        os.kill(pid, signal.SIGABRT)
        wait_until(lambda: started.pid != pid and answers(started.url), 60.0, "not started anew")
        assert "its jobs have failed; starting it anew" in caplog.text
    finally:
        end(started)
