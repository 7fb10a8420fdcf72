"""The `heartvoice` command, in-process and as a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.fakes.server import (
    FakeServer,
    endless_song,
)
from tests.support.callers import listing


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_cancel_on_the_server_and_leave_no_file(
    server: FakeServer, folder: Path, number: signal.Signals, code: int
) -> None:
    server.song = endless_song
    arguments = [sys.executable, "-m", "heartvoice.cli.main", "song", "--url", server.url, "--tags", "pop"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(arguments, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert process.stderr.readline().startswith("writing: 10/3000 frames")
    time.sleep(0.1)
    process.send_signal(number)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in rest
    if number == signal.SIGINT:
        assert "interrupted: the song was cancelled and no file written" in rest
    assert server.cancelled.wait(60)
    assert not listing(folder)
