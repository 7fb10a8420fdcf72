"""Files: right content, right tag, all or nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.callers import listing

INTERRUPTED = """
import os, signal, sys, threading, time
import numpy as np
from heartvoice.audio import encode as module
from heartvoice.client import Client  # what a command has loaded when it writes

encode = module.Spool._encode

def slow(self, *arguments):
    threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGINT)).start()
    encode(self, *arguments)

module.Spool._encode = slow
with module.AudioWriter(sys.argv[1]) as writer:
    writer.write(np.random.default_rng(0).uniform(-0.5, 0.5, (2, 60 * 48_000)))
    try:
        writer.commit(module.Tags("comment"))
    except KeyboardInterrupt:
        print("interrupted")
"""


@pytest.mark.parametrize("name", ["song.mp3", "song.ogg", "song.flac"])
def test_an_interrupt_while_encoding_stops_it_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    command = [sys.executable, "-c", INTERRUPTED, str(tmp_path / name)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "interrupted\n"
    assert not done.stderr
    assert not listing(tmp_path)
