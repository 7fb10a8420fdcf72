"""What a start says, and which ends of a server are followed by a new start."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from heartvoice.errors import EngineError
from heartvoice.server import loading
from heartvoice.server.loading import LoadProgress
from heartvoice.server.workarounds import stalled_start
from heartvoice.server.workarounds.crash_restarts import MAX_CRASHES, CrashCount
from heartvoice.server.workarounds.stalled_start import STALL_S, StallWatch, cpu_s
from heartvoice.server.workarounds.stalled_start import loading as loading_processes
from tests.support.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_only_a_crash_and_a_hang_are_followed_by_a_start() -> None:
    assert CrashCount().may_restart(-signal.SIGABRT)
    assert CrashCount().may_restart(-signal.SIGKILL, hung=True)
    assert not CrashCount().may_restart(-signal.SIGKILL), "an operator's kill"
    assert not CrashCount().may_restart(0)


def test_hangs_and_crashes_are_given_up_together() -> None:
    count = CrashCount()
    ends = [count.may_restart(-signal.SIGKILL, hung=bool(n % 2)) or not n % 2 for n in range(MAX_CRASHES)]
    assert all(ends)
    assert not count.may_restart(-signal.SIGKILL, hung=True)


def test_a_start_says_what_is_loaded_and_what_is_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "server.log"
    path.write_text("\"successfully loaded 'song'\" of an earlier start\n")
    progress = LoadProgress(["song", "svc"], path, path.stat().st_size)
    with caplog.at_level(logging.INFO, "heartvoice"), path.open("a") as log:
        print("I0101 successfully loaded 'svc'", file=log, flush=True)
        print("I0101 successfully loa", end="", file=log, flush=True)
        progress.look()
        assert caplog.messages == ["loaded svc, 1 of 2"]
        progress.look()
        monkeypatch.setattr(loading, "REPEAT_S", 0.0)
        progress.look()
        print("ded 'song'", file=log, flush=True)
        progress.look()
    assert caplog.messages == ["loaded svc, 1 of 2", "still loading song", "loaded song, 2 of 2"]


def test_a_models_process_ends_when_its_interpreter_begins_to_exit() -> None:
    code = """
import atexit, sys
atexit.register(print, "kept")
from heartvoice.serving.workarounds import quick_exit
class Slow:
    def __del__(self): print("taken apart")
slow = Slow()
quick_exit.arrange()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "kept\n")


def test_a_start_that_failed_because_a_process_stood_still_may_be_repeated_once(tmp_path: Path) -> None:
    path = tmp_path / "server.log"
    path.write_text(
        "E0101 model_lifecycle.cc:642] \"failed to load 'song' version 1: Internal: Stub process 'song_0_0' is not"
        ' healthy."\n'
    )
    progress = LoadProgress(["song"], path, 0)
    with subprocess.Popen([sys.executable, "-c", "raise SystemExit(1)"]) as ended:
        ended.wait()
        arguments = (ended, "127.0.0.1:1", progress, 60.0, lambda: False)
        assert not loading.wait_ready(*arguments, again=True)
        with pytest.raises(EngineError, match="is not healthy"):
            loading.wait_ready(*arguments, again=False)


def test_a_start_that_works_is_waited_for(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stalled_start, "LEAST_CPU_S", 0.05)
    code = "import time; print('here', flush=True); input(); began = time.process_time()\n"
    code += "while time.process_time() < began + 0.1: pass\nprint('done', flush=True); input()"
    command = [sys.executable, "-c", code, "song_0_0"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as stub:
        assert stub.stdout is not None
        assert stub.stdin is not None
        assert stub.stdout.readline() == "here\n"
        assert loading_processes(os.getpid(), ["song", "svc"]) == {"song": stub.pid}
        watch = StallWatch(os.getpid(), clock=clock)
        monkeypatch.setattr(stalled_start, "cpu_s", lambda pid: cpu_s(pid) if pid == stub.pid else 0.0)
        assert not watch.stalled(10, ["song"])
        clock.now += STALL_S
        assert not watch.stalled(11, ["song"]), "the log has grown"
        clock.now += STALL_S - 1.0
        assert not watch.stalled(11, ["song"])
        print("on", file=stub.stdin, flush=True)
        assert stub.stdout.readline() == "done\n"
        clock.now += 1.0
        assert not watch.stalled(11, ["song"]), "the model's process has worked"
        clock.now += STALL_S
        assert watch.stalled(11, ["song"])
        assert f"song (pid {stub.pid}) in state S at " in watch.describe(["song"])
        stub.kill()


def test_a_start_that_stands_still_is_given_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stalled_start, "STALL_S", -1.0)
    path = tmp_path / "server.log"
    path.write_text("I0101 loading: song\n")
    with subprocess.Popen(["sleep", "60"]) as still:
        arguments = (still, "127.0.0.1:1", LoadProgress(["song"], path, 0), 60.0, lambda: False)
        assert not loading.wait_ready(*arguments, again=True)
        assert "without progress while song was being loaded: server (pid" in caplog.text
        assert [record.levelname for record in caplog.records] == ["WARNING"], "it is repeated, so nothing has failed"
        with pytest.raises(EngineError, match=r"the server did not start: .* without progress while song was being"):
            loading.wait_ready(*arguments, again=False)
        still.kill()
