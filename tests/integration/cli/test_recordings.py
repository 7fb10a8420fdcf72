"""`heartvoice cover` and `separate` as processes: signals, terminals, memory."""

from __future__ import annotations

import os
import re
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.fakes.server import (
    FakeServer,
    endless_song,
    endless_stems,
    final,
    stems,
    stems_report,
)
from tests.support.callers import inputs, made, peak_bytes  # noqa: F401
from tests.unit.cli.test_recording_errors import COVER


@pytest.mark.parametrize(
    ("command", "number", "code"),
    [("cover", signal.SIGINT, 130), ("separate", signal.SIGINT, 130), ("separate", signal.SIGTERM, 143)],
)
def test_signals_cancel_on_the_server_and_leave_no_file(
    server: FakeServer,
    inputs: Path,  # noqa: F811
    command: str,
    number: signal.Signals,
    code: int,
) -> None:
    server.cover, server.demucs = endless_song, endless_stems
    arguments = COVER if command == "cover" else ("separate", "song.mp3")
    line = [sys.executable, "-m", "heartvoice.cli.main", arguments[0], "--url", server.url, *arguments[1:]]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(line, cwd=inputs, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert re.match(r"(writing|separating): 10/3000 frames", process.stderr.readline())
    time.sleep(0.1)
    process.send_signal(number)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in rest
    if number == signal.SIGINT:
        what = "cover" if command == "cover" else "separation"
        assert f"interrupted: the {what} was cancelled and no file written" in rest
    assert server.cancelled.wait(60)
    assert made() == []


def test_a_terminal_is_no_recording(server: FakeServer, inputs: Path) -> None:  # noqa: F811
    controller, terminal = os.openpty()
    try:
        line = [sys.executable, "-m", "heartvoice.cli.main", "separate", "--url", server.url, "-"]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(line, cwd=inputs, env=environment, stdin=terminal, capture_output=True, text=True)
    finally:
        os.close(controller)
        os.close(terminal)
    assert (done.returncode, done.stderr) == (
        2, "error: recording: expected a file on standard input, got a terminal\n",
    )  # fmt: skip


def test_long_stems_do_not_stay_in_memory(server: FakeServer, inputs: Path) -> None:  # noqa: F811
    """Three minutes of four stems are 259 MB."""
    n_chunk, n_chunks = 90_000, 90

    def long_stems(request: Any, context: Any) -> Iterator[Any]:
        chunk = np.random.default_rng(0).uniform(-0.5, 0.5, (4, 2, n_chunk)).astype(np.float32)
        for index in range(n_chunks):
            response = stems(0, 1)
            response.infer_response.outputs[0].shape[:] = chunk.shape
            response.infer_response.raw_output_contents[0] = chunk.tobytes()
            response.infer_response.raw_output_contents[1] = struct.pack("<q", index * n_chunk)
            yield response
        yield stems_report(samples=n_chunk * n_chunks)
        yield final()

    server.demucs = long_stems
    peak = peak_bytes("separate", "--url", server.url, "song.mp3", cwd=inputs)
    assert soundfile.info("stems/vocals.wav").frames == n_chunk * n_chunks
    assert peak < 300e6  # above 220 MB on a busy machine; all that is sent would make 360 MB
