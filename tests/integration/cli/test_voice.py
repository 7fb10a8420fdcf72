"""`heartvoice song` in a voice, and `--stems` of songs and covers, in-process and as processes."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import soundfile

from tests.fakes.server import (
    FakeServer,
    endless_song,
    final,
    job_report,
    mix_stems,
    stream_response,
)
from tests.support.callers import inputs, made, peak_bytes  # noqa: F401
from tests.unit.cli.test_voice import COVER, SUNG


def endless(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
    """Audio and as many stems until the caller is gone."""
    for response in endless_song(request, context):
        yield response
        if response.infer_response.outputs[0].name == "AUDIO":
            (start,) = struct.unpack("<q", response.infer_response.raw_output_contents[1])
            yield mix_stems(start, 4_800)


@pytest.mark.parametrize("job", [SUNG, COVER], ids=["sung", "cover"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_leave_neither_song_nor_stems(
    server: FakeServer,
    inputs: Path,  # noqa: F811
    job: tuple[str, ...],
    number: signal.Signals,
    code: int,
) -> None:
    server.song = server.cover = endless
    line = [sys.executable, "-m", "heartvoice.cli.main", job[0], "--url", server.url, *job[1:], "--stems", "parts"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(line, cwd=inputs, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert process.stderr.readline().startswith("writing: 10/3000 frames")
    time.sleep(0.2)  # some audio and stems have come
    process.send_signal(number)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in rest
    if number == signal.SIGINT:
        assert f"interrupted: the {job[0]} was cancelled and no file written" in rest
    assert server.cancelled.wait(60)
    assert made() == []


def test_long_songs_with_stems_do_not_stay_in_memory(server: FakeServer, inputs: Path) -> None:  # noqa: F811
    """Three minutes of a song and its stems are 207 MB."""
    n_chunk, n_chunks = 96_000, 90

    def long_song(request: Any, context: Any) -> Iterator[Any]:
        chunk = np.random.default_rng(0).uniform(-0.3, 0.3, (2, 2, n_chunk)).astype(np.float32)
        for start in range(0, n_chunk * n_chunks, n_chunk):
            yield stream_response({"AUDIO": chunk.sum(axis=0), "START": [start]})
            yield stream_response({"STEMS": chunk, "START": [start]})
        yield job_report({"stems"}, samples=n_chunk * n_chunks)
        yield final()

    server.song = long_song
    peak = peak_bytes("song", "--url", server.url, "--tags", "pop", "--stems", "p", cwd=inputs)
    assert soundfile.info("p/vocals.wav").frames == n_chunk * n_chunks
    assert peak < 260e6  # 120 MB alone, 170 MB on a busy machine; all that is sent would make 300 MB
