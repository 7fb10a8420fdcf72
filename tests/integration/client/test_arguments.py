"""The typed keyword arguments: those of the contract, checked by mypy and at the call."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mypy import api

ROOT = Path(__file__).parents[3]


CALLS = """\
import numpy as np
from heartvoice.client import AsyncClient, Client, SongRequest

client = Client("host:1", tls=True, retries=2)
client.song("la", "pop", duration_s=8, seed=np.int64(7), top_k=None, live=True, voice="me.wav", consent="me")
client.song(SongRequest("la"), timeout_s=5.0)
client.render("la", file_format="flac", temperature=np.float32(0.5))
client.cover("song.wav", (np.zeros(9), 48000), consent="me", stems=True, auto_pitch="off")
client.render_cover("song.wav", b"me", consent="me", seed=1)
Client(tsl=True)  # wrong: unknown name
Client(retries="2")  # wrong: type
client.song("la", duration_s="8")  # wrong: type
client.song("la", duration=8)  # wrong: unknown name
client.stream("la", consent=None)  # wrong: type
client.render("la", stems=True)  # wrong: a file has no stems
client.cover("song.wav", consent="me")  # wrong: no voice
client.cover("song.wav", "voice_1")
client.cover("song.wav", "me.wav", consent="me", duration_s=8)  # wrong: unknown name
client.stream_cover("song.wav", "me.wav", consent="me", seed=0.5)  # wrong: type


async def main() -> None:
    other = AsyncClient("host:1", timeout_s=5)
    await other.song("la", "pop", duration_s=8, seed=7)
    await other.cover("song.wav", "me.wav", consent="me", pitch_shift=2)
    await other.song("la", seed="7")  # wrong: type
    await other.cover("song.wav", "me.wav", consent="me", duration_s=8)  # wrong: unknown name
"""


def test_mypy_accepts_right_calls_and_rejects_wrong_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # where the configuration and its cache are
    file = tmp_path / "calls.py"
    file.write_text(CALLS, encoding="utf-8")
    output, errors, _ = api.run(["--config-file", "pyproject.toml", "--hide-error-context", str(file)])
    assert not errors
    found = {int(number) for number in re.findall(rf"{file.name}:(\d+): error", output)}
    wrong = {number for number, line in enumerate(CALLS.splitlines(), 1) if "# wrong" in line}
    assert found == wrong, output
