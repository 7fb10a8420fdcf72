"""What goes wrong in `heartvoice cover`, `separate` and `similarity`."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from heartvoice.client import large_files, recordings
from heartvoice.contracts.constants import MAX_LOCAL_FILE_BYTES
from tests.fakes.server import (
    FakeServer,
    audio,
    error_response,
    input_bytes,
    scripted,
    silent_song,
    stems,
)
from tests.support.callers import heartvoice, inputs, listing, made  # noqa: F401
from tests.support.music import encode
from tests.unit.cli.test_recordings import cover, separate

pytestmark = pytest.mark.usefixtures("inputs")

COVER = ("cover", "song.mp3", "--voice", "voice.flac", "--consent", "me")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            COVER[:4],
            "--consent: missing, expected who consents to the use of the voice and how, 1 to 500 characters",
        ),
        ((*COVER[:5], "x" * 501), "--consent: expected at most 500 characters, got 501"),
        (("cover", "song.mp3", "--consent", "me"), "--voice: expected a reference of 3 to 60 s"),
        (("cover", "--voice", "voice.flac"), "Missing argument"),
        (("cover", "missing.mp3", *COVER[2:]), "recording: cannot read 'missing.mp3': No such file or directory"),
        (("cover", ".", *COVER[2:]), "recording: expected a file, got '.', which is a folder"),
        (("cover", "empty", *COVER[2:]), "recording empty: expected an encoded recording, got an empty file"),
        (("cover", "big", *COVER[2:]), f"recording big: expected at most {MAX_LOCAL_FILE_BYTES} bytes, got"),
        (("cover", "-", "--voice", "-", *COVER[4:]), "recording, --voice: expected at most one of them on standard"),
        (("cover", "-", *COVER[2:]), "recording -: expected an encoded recording, got an empty file"),
        ((*COVER, "--voice", "missing"), "--voice: cannot read 'missing': No such file or directory"),
        ((*COVER, "--no-vocals", "keep"), "--no-vocals: expected one of error, passthrough, convert, got 'keep'"),
        ((*COVER, "--vocal-gain-db", "13"), "--vocal-gain-db: expected -24 to 12 dB, got 13.0"),
        ((*COVER, "--vocal-gain-db", "nan"), "--vocal-gain-db: expected -24 to 12 dB, got nan"),
        ((*COVER, "-o", "out.txt"), "--output: expected a name ending in"),
        ((*COVER, "-o", "no/out.wav"), "--output: no such folder: "),
        ((*COVER, "--duration", "3"), "No such option: --duration"),
        ((*COVER, "--timeout", "0"), "--timeout: expected a number above 0, got 0.0"),
        (("separate", "missing.mp3"), "recording: cannot read 'missing.mp3': No such file or directory"),
        (("separate", "song.mp3", "-o", "voice.flac"), "--output: expected a folder, got 'voice.flac'"),
        (("separate", "song.mp3", "-o", "no/out"), "--output: no such folder: "),
        (("separate", "song.mp3", "--format", "aac"), "--format: expected wav, flac, mp3, ogg, got 'aac'"),
        (("separate", "song.mp3", "--sources", ""), "--sources: expected names such as vocals, got ''"),
        (("similarity", "song.mp3", "missing"), "B: cannot read 'missing': No such file or directory"),
        (("similarity", ".", "song.mp3"), "A: expected a file, got '.', which is a folder"),
        (("similarity", "-", "-"), "A, B: expected at most one of them on standard input, got both"),
        (("similarity", "song.mp3"), "Missing argument"),
    ],
)
def test_invalid_input_is_one_line_and_code_2(server: FakeServer, arguments: tuple[str, ...], text: str) -> None:
    Path("empty").touch()
    with Path("big").open("wb") as file:
        file.truncate(MAX_LOCAL_FILE_BYTES + 1)
    result = heartvoice(arguments[0], "--url", server.url, *arguments[1:])
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {text}")
    assert result.stderr.count("\n") == 1
    assert not result.stdout
    assert not server.requests
    assert made() == ["big", "empty"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("INVALID_ARG: recording: no vocals found", 2),
        ("UNAVAILABLE: cover: 4 of 4 jobs", 3),
        ("DEADLINE_EXCEEDED: too slow", 4),
        ("INTERNAL: svc: broke", 1),
    ],
)
@pytest.mark.parametrize("command", ["cover", "separate"])
def test_the_servers_errors_have_their_exit_codes_and_leave_no_file(
    server: FakeServer, command: str, text: str, code: int
) -> None:
    server.cover = scripted(audio(0, 48_000), error_response(text))
    server.demucs = scripted(stems(0, 44_100), error_response(text))
    result = cover(server, "--json") if command == "cover" else separate(server, "song.mp3", "--json")
    assert result.exit_code == code
    assert result.stderr == f"error: {text.partition(': ')[2]}\n"
    assert not result.stdout
    assert made() == []


@pytest.mark.parametrize(
    ("from_server", "shown"),
    [
        ("file: expected WAV, got MP4", "recording song.mp3: expected WAV, got MP4"),
        ("voice: expected WAV, got MP4", "--voice voice.flac: expected WAV, got MP4"),
        ("seed: expected 0 or more, got -1", "--seed: expected 0 or more, got -1"),
    ],
)
def test_errors_name_the_option_and_the_file(server: FakeServer, from_server: str, shown: str) -> None:
    server.cover = scripted(error_response(f"INVALID_ARG: {from_server}"))
    result = cover(server)
    assert (result.exit_code, result.stderr) == (2, f"error: {shown}\n")


def test_the_faults_of_a_file_that_was_decoded_here_are_told(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encode(np.zeros((3, 9000), np.float32), 8000, "WAV", "PCM_16")
    Path("song.mp3").write_bytes(data)
    for module in (recordings, large_files):
        monkeypatch.setattr(module, "MAX_FILE_BYTES", len(data) - 1)
    result = cover(server)
    assert result.exit_code == 0, result.stderr
    assert "warning: recording song.mp3: multichannel: 3 channels (FL FR FC)" in result.stderr
    assert input_bytes(server.requests[0], "file").startswith(b"fLaC")


def test_a_server_without_covers_is_code_3(server: FakeServer) -> None:
    server.cover = scripted(error_response("Request for unknown model: 'cover' is not found"))
    result = cover(server)
    assert (result.exit_code, made()) == (3, [])
    assert result.stderr == "error: Request for unknown model: 'cover' is not found\n"


@pytest.mark.parametrize("existed", [True, False])
def test_a_full_disk_leaves_no_stem_and_the_old_ones(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, existed: bool
) -> None:
    if existed:
        Path("stems").mkdir()
        Path("stems/bass.wav").write_bytes(b"old")
    synced: list[int] = []

    def full(descriptor: int) -> None:
        synced.append(descriptor)
        if len(synced) == 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    result = separate(server, "song.mp3")
    assert result.exit_code == 1
    assert result.stderr.endswith(f"error: {Path('stems/other.wav').resolve()}: No space left on device\n")
    if existed:
        assert listing(Path("stems")) == ["bass.wav"]
        assert Path("stems/bass.wav").read_bytes() == b"old"
    else:
        assert made() == []


def test_a_deadline_is_code_4(server: FakeServer) -> None:
    server.demucs = silent_song
    result = separate(server, "song.mp3", "--timeout", "0.2")
    assert (result.exit_code, result.stderr) == (
        4,
        "error: demucs: no complete answer within 0.2 s; for longer: --timeout (timeout_s)\n",
    )
    assert made() == []
