"""The programs of examples/python, run as they stand against the session's server."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from heartvoice.server.server import EmbeddedServer

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "python"
PROGRAMS = sorted(path.name for path in EXAMPLES.glob("*.py"))
SECONDS = ("--seconds", "4")


def command(name: str, server: EmbeddedServer, *arguments: str) -> list[str]:
    return [sys.executable, str(EXAMPLES / name), *arguments, "--url", server.url]


def run(name: str, server: EmbeddedServer, *arguments: str) -> bytes:
    done = subprocess.run(command(name, server, *arguments), capture_output=True, timeout=110)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_example_is_short_and_says_how_to_run_it(name: str) -> None:
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 41
    assert f"python examples/python/{name}" in text.split('"""')[1]


def test_first_song(server: EmbeddedServer, tmp_path: Path) -> None:
    printed = run("first_song.py", server, str(tmp_path / "song.flac"), *SECONDS)
    assert b"4.0 s, seed 7, random weights" in printed
    assert soundfile.info(tmp_path / "song.flac").frames == 192_000


def test_stream_to_speakers_writes_samples_to_a_pipe(
    server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sounddevice.py").write_text("raise OSError('no sound library')")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    samples = np.frombuffer(run("stream_to_speakers.py", server, *SECONDS), np.float32).reshape(-1, 2)
    assert samples.shape == (192_000, 2)
    assert 0 < np.abs(samples).max() <= 1


def test_batch_leaves_finished_songs_alone_and_goes_on_after_a_bad_file(server: EmbeddedServer, tmp_path: Path) -> None:
    lyrics, songs = tmp_path / "lyrics", tmp_path / "songs"
    lyrics.mkdir()
    for name, text in (("a", "La la"), ("b", "\a"), ("c", "Li li")):
        (lyrics / f"{name}.txt").write_text(text)
    (lyrics / "d.txt").write_bytes(b"no UTF-8: \xff")
    printed = run("batch.py", server, str(lyrics), str(songs), *SECONDS).decode()
    assert re.findall(r"(\w+)\.(?:txt|flac): (\w+)", printed) == [("a", "made"), ("b", "lyrics"), ("c", "made")]
    assert sorted(path.name for path in songs.iterdir()) == ["a.flac", "c.flac"]
    assert "d.txt: 'utf-8' codec can't decode byte 0xff" in printed
    (lyrics / "b.txt").unlink()
    assert run("batch.py", server, str(lyrics), str(songs), *SECONDS).count(b"exists") == 2


def test_cover(server: EmbeddedServer, tmp_path: Path) -> None:
    recording, voice = tmp_path / "recording.wav", tmp_path / "voice.wav"
    time = np.arange(4 * 48_000) / 48_000
    soundfile.write(recording, 0.3 * np.sin(2 * np.pi * 220 * time)[: 2 * 48_000], 48_000)
    soundfile.write(voice, 0.3 * np.sin(2 * np.pi * 330 * time), 48_000)
    printed = run(
        "cover.py", server, str(recording), str(voice), "Nobody's voice: a tone", str(tmp_path / "cover.flac"),
        "--stems", str(tmp_path / "stems"),
    )  # fmt: skip
    assert b"converted: True" in printed
    assert b"warning: voice: short" in printed
    assert soundfile.info(tmp_path / "cover.flac").frames == 96_000
    assert sorted(path.name for path in (tmp_path / "stems").iterdir()) == ["instrumental.flac", "vocals.flac"]


def test_asyncio_service_answers_each_caller(server: EmbeddedServer, tmp_path: Path) -> None:
    with subprocess.Popen(
        command("asyncio_service.py", server, "--port", "0", *SECONDS), stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout
            port = int(process.stdout.readline().split()[-1])
            answers = [ask(port, text) for text in (b"La la", b"\a")]
        finally:
            process.terminate()
    (tmp_path / "song.flac").write_bytes(answers[0])
    assert soundfile.info(tmp_path / "song.flac").frames == 192_000
    assert answers[1].startswith(b"error: lyrics: ")


def ask(port: int, text: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(text)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65_536), b""))
