"""A crashed Triton is restarted, both while it serves and while it loads a model."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
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

CODEC = ("heartcodec",)
PAUSED = """
import os, pathlib, time
flag = pathlib.Path({flag!r})
if not flag.exists():
    flag.write_text(str(os.getpid()))
    time.sleep(1)
"""
STAND_STILL_S = 2.5
"""Length of the pause in seconds."""


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


def paused_once(repository: Repository, root: Path) -> Path:
    """Make a repository whose codec loads slowly and writes its pid into a flag file."""
    shutil.copytree(repository.root, root)
    model = root / CODEC[0] / "1" / "model.py"
    model.write_text(PAUSED.format(flag=str(root / "flag")) + model.read_text())
    return root


def stand_still(flag: Path) -> None:
    """Pause the process of the flag file for `STAND_STILL_S`."""
    wait_until(flag.exists, 60.0, "no model is loaded")
    time.sleep(0.1)
    os.kill(int(flag.read_text()), signal.SIGSTOP)
    time.sleep(STAND_STILL_S)
    with suppress(ProcessLookupError):
        os.kill(int(flag.read_text()), signal.SIGCONT)


def test_a_crash_during_load_is_survived_at_start_and_reload(
    repository: Repository, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Both a start and a reload survive the fault of `heartvoice.server.workarounds.load_crash`."""
    root = paused_once(repository, tmp_path / "repository")
    flag, log = root / "flag", tmp_path / "server.log"
    started = EmbeddedServer(ServerOptions(root, free_port(), free_port(), models=CODEC, log_path=log))
    pausing = threading.Thread(target=stand_still, args=(flag,))
    pausing.start()
    try:
        started.start()
        pausing.join()
        assert "lock_exception" in log.read_text(), "this Triton does not crash: nothing to test"
        assert "starting it once more" in caplog.text
        pid = started.pid
        flag.unlink()
        pausing = threading.Thread(target=stand_still, args=(flag,))
        pausing.start()
        os.kill(started.stub_pids()[CODEC[0]], signal.SIGKILL)
        pausing.join()
        wait_until(lambda: started.pid != pid and answers(started.url), 60.0, "not started anew")
        assert "its jobs have failed; starting it anew" in caplog.text
    finally:
        end(started)
