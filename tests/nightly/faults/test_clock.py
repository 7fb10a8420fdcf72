"""A wall clock that jumps while jobs run, and a look at the source for deadlines that would follow it."""

from __future__ import annotations

import ast
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import heartvoice
from heartvoice.client import Client
from heartvoice.errors import DeadlineError
from heartvoice.server.server import EmbeddedServer
from tests.support.faults.jobs import Running, left_behind, song
from tests.support.faults.recorder import Recorder
from tests.support.raw import OF_SONGS
from tests.support.waiting import wait_until

DAY_S = 86_400
WALL_CLOCKS = {
    ("time", "time"),
    ("time", "time_ns"),
    ("datetime", "now"),
    ("datetime", "utcnow"),
    ("time", "localtime"),
}


@pytest.mark.parametrize("folder", ["serving", "embedded", "client", "stages", "."])
def test_nothing_that_waits_looks_at_the_time_of_day(folder: str) -> None:
    root = Path(heartvoice.__file__).parent / folder
    found = []
    for path in sorted(root.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
                owner = node.value.id if isinstance(node.value, ast.Name) else node.value.attr
                if (owner, node.attr) in WALL_CLOCKS:
                    found.append(f"{path.name}:{node.lineno}: {owner}.{node.attr}")
    assert not found


@pytest.fixture
def jump(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets the wall clock of servers started from now on, by so many seconds."""
    library, offset = tmp_path / "clock.so", tmp_path / "offset"
    source = Path(__file__).with_name("clock.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    offset.write_bytes(bytes(8))
    monkeypatch.setenv("LD_PRELOAD", str(library))
    monkeypatch.setenv("FAULT_CLOCK", str(offset))

    def set_offset(seconds: int) -> None:
        with offset.open("r+b") as file:  # in place: it is mapped
            file.write(struct.pack("<q", seconds))

    return set_offset


@pytest.mark.timeout(120)
def test_a_jump_of_the_wall_clock_moves_no_deadline_and_no_sample(
    new_server: Callable[..., EmbeddedServer], jump: Callable[[int], None], record: Recorder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    server = new_server(models=OF_SONGS, hang_s=5.0)
    monkeypatch.delenv("LD_PRELOAD")
    clock = subprocess.run(
        ["date", "+%s"], capture_output=True, text=True, env=dict(environ(server.pid)), check=True
    )  # the library is really there
    assert abs(int(clock.stdout) - time.time()) < 3600
    with Client(server.url, retries=0) as client:
        expected = song(client)
        for jumped in (DAY_S, -DAY_S):
            jump(0)
            job = Running(lambda: song(client))
            wait_until(lambda: server.live_jobs() > 0, 60.0, "no job")
            jump(jumped)
            clock = subprocess.run(
                ["date", "+%s"], capture_output=True, text=True, env=dict(environ(server.pid)), check=True
            )
            assert abs(int(clock.stdout) - time.time() - jumped) < 3600, "the clock has not jumped"
            assert np.array_equal(job.wait().samples, expected)
            with pytest.raises(DeadlineError):
                client.song(lyrics="la", duration_s=240.0, min_duration_s=240.0, codec_window=93, timeout_s=1.0)
            wait_until(lambda: server.live_jobs() == 0, 60.0, "jobs still live")
        assert not server.restarts, "a process was taken for hung"
        left = left_behind(server)
    record(
        "the wall clock jumps a day forward and back during songs (preloaded clock)", saw="the whole song, right",
        others="a deadline of 1 s still ends a song", left=left,
    )  # fmt: skip
    assert not left


def environ(pid: int) -> list[tuple[str, str]]:
    """A process's own environment."""
    entries = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return [(name, value) for name, _, value in (entry.partition("=") for entry in entries) if name]
