"""Hostile arguments, files and servers against the commands: one clear line, nothing left behind, nothing obeyed."""

from __future__ import annotations

import io
import os
import pickle
import re
import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heartvoice.cli.terminal import escape_controls
from tests.fakes.server import FakeServer, audio, error_response, event, final, report, scripted
from tests.support.callers import folder, heartvoice, listing  # noqa: F401

pytestmark = pytest.mark.usefixtures("folder")

ESCAPES = "\x1b]0;owned\x07\x1b[2J"
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
MEMORY = 3 * 2**30
"""Address space of a command that is handed an endless file; importing takes most of it."""


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    server = FakeServer().start()
    yield server
    server.stop()


def refused(result: Any, pattern: str, *, codes: tuple[int, ...] = (1, 2, 3)) -> None:
    """One line of error on stderr that matches, and no more."""
    assert result.exit_code in codes, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    said = result.stderr
    assert not _UNPRINTABLE.search(said), ascii(said)
    assert "Traceback" not in said
    error = said[said.index("error: ") :]
    assert re.search(pattern, error), error


def sparse(path: Path, n_bytes: int) -> str:
    with path.open("wb") as file:
        file.truncate(n_bytes)
    return str(path)


def made(path: str, make: Callable[[Path], object]) -> str:
    make(Path(path))
    return path


# ------------------------------------------------------------------------------------------------------------ arguments

TEXTS: list[tuple[str, Callable[[], str], str]] = [
    ("a folder", lambda: made("d", Path.mkdir), "lyrics: cannot read 'd': Is a directory"),
    ("nothing there", lambda: "none.txt", "lyrics: cannot read 'none.txt': No such file"),
    ("a link to itself", lambda: made("loop", lambda path: path.symlink_to("loop")), "lyrics: cannot read 'loop'"),
    ("a terabyte of holes", lambda: sparse(Path("holes.txt"), 2**40), "lyrics: expected at most 20000 bytes"),
    ("no UTF-8", lambda: made("b", lambda path: path.write_bytes(b"la \xff")), "lyrics: expected UTF-8, got byte 0xff"),
    (
        "UTF-16",
        lambda: made("u", lambda path: path.write_bytes("la".encode("utf-16"))),
        "lyrics: expected UTF-8, got UTF-16",
    ),
    ("a name of escapes", lambda: ESCAPES, r"lyrics: cannot read .*\\x1b"),
    ("a name of 300 letters", lambda: "x" * 300, "lyrics: cannot read .*File name too long"),
    ("a name that reads backwards", lambda: "a\u202egnp.txt", r"lyrics: cannot read .*\\u202e"),
]


@pytest.mark.parametrize(("make", "message"), [pytest.param(*rest, id=name) for name, *rest in TEXTS])
def test_lyrics_that_are_no_text_file_are_refused(make: Callable[[], str], message: str) -> None:
    refused(heartvoice("song", "--lyrics", f"@{make()}"), message, codes=(2,))
    assert not Path("song.wav").exists()


def test_a_pipe_is_a_text_file(fake: FakeServer) -> None:
    """What a shell's `<(...)` gives."""
    os.mkfifo("pipe")
    writer = threading.Thread(target=lambda: Path("pipe").write_text("la la"), daemon=True)
    writer.start()
    result = heartvoice("song", "--url", fake.url, "--lyrics", "@pipe")
    assert result.exit_code == 0, result.stderr


RECORDINGS: list[tuple[str, Callable[[], str], str]] = [
    ("a folder", lambda: made("d", Path.mkdir), "voice: expected a file, got 'd', which is a folder"),
    ("a pipe", lambda: made("p", os.mkfifo), "voice: expected a file, got 'p', which is something else"),
    ("an endless device", lambda: "/dev/zero", "voice: expected a file, got '/dev/zero'"),
    ("a link to a device", lambda: made("z", lambda path: path.symlink_to("/dev/zero")), "voice: expected a file"),
    ("a terabyte of holes", lambda: sparse(Path("h.wav"), 2**40), "voice.*: expected at most 1000000000 bytes"),
    ("nothing", lambda: sparse(Path("e.wav"), 0), "--voice e.wav: expected an encoded recording, got an empty file"),
    ("nothing there", lambda: "none.wav", "voice: cannot read 'none.wav'"),
    ("a process's memory", lambda: "/proc/self/mem", "voice: (cannot read|expected)"),
    ("a name of escapes", lambda: ESCAPES, r"voice: cannot read .*\\x1b"),
]


@pytest.mark.parametrize(("make", "message"), [pytest.param(*rest, id=name) for name, *rest in RECORDINGS])
def test_references_that_are_no_file_are_refused(make: Callable[[], str], message: str) -> None:
    refused(heartvoice("song", "--tags", "pop", "--voice", make(), "--consent", "me"), message, codes=(2,))


def npy(header: str, data: bytes = b"") -> bytes:
    """A .npy file of version 1 with this header."""
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text + data


class Bomb:
    """A pickle of this makes a file when it is opened."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("executed",)


def _pickled() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([Bomb()], object), allow_pickle=True)
    return file.getvalue()


ARRAYS: list[tuple[str, Callable[[], bytes]]] = [
    ("a pickle", _pickled),
    ("a bare pickle", lambda: pickle.dumps(Bomb())),
    ("an archive", lambda: b"PK\x03\x04" + b"\0" * 100),
    ("half a header", lambda: npy("{'descr': '<i4'")[:20]),
    ("a header of code", lambda: npy("__import__('os').mkdir('executed')")),
    ("more values than bytes", lambda: npy("{'descr': '<i4', 'fortran_order': False, 'shape': (8, 3000)}")),
    ("values of nothing", lambda: npy("{'descr': '|V0', 'fortran_order': False, 'shape': (3000,)}")),
    ("minus one value", lambda: npy("{'descr': '<i4', 'fortran_order': False, 'shape': (3, -7)}", b"\0" * 32)),
    ("a header of brackets", lambda: npy("(" * 110)),
    ("nothing", lambda: b""),
    ("a version of the future", lambda: b"\x93NUMPY\x63\0" + b"\0" * 100),
]


@pytest.mark.parametrize("option", ["--codes", "--style"])
@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in ARRAYS])
def test_arrays_that_are_none_are_refused_and_never_run(make: Callable[[], bytes], option: str) -> None:
    Path("a.npy").write_bytes(make())
    refused(heartvoice("song", "--tags", "pop", option, "a.npy"), f"{option[2:]}: expected", codes=(2,))
    assert listing(Path()) == ["a.npy"]


OUTPUTS: list[tuple[str, Callable[[], str], str]] = [
    ("a folder", lambda: made("d.wav", Path.mkdir), "output: expected a file, got 'd.wav'"),
    ("a pipe", lambda: made("p.wav", os.mkfifo), "output: expected a file, got 'p.wav'"),
    ("a link to a device", lambda: made("z.wav", lambda path: path.symlink_to("/dev/full")), "output: expected a file"),
    ("a link into nowhere", lambda: made("n.wav", lambda path: path.symlink_to("no/x.wav")), "output: no such folder"),
    ("a folder that is not there", lambda: "no/song.wav", "output: no such folder"),
    ("a device", lambda: "/dev/null", "output: expected a name ending in .wav"),
    ("no sound", lambda: "song.exe", "output: expected a name ending in .wav, .flac, .mp3, .ogg, got 'song.exe'"),
    ("a name of 300 letters", lambda: "x" * 300 + ".wav", "File name too long"),
    ("a name of escapes", lambda: f"no/{ESCAPES}.wav", "output: no such folder"),
]


@pytest.mark.parametrize(("make", "message"), [pytest.param(*rest, id=name) for name, *rest in OUTPUTS])
def test_places_where_no_song_can_go_are_refused(make: Callable[[], str], message: str, fake: FakeServer) -> None:
    path = make()
    before = listing(Path())
    refused(heartvoice("song", "--url", fake.url, "--tags", "pop", "-o", path), message)
    assert listing(Path()) == before


def test_a_link_keeps_pointing_and_its_target_is_the_song(fake: FakeServer) -> None:
    Path("real.wav").write_bytes(b"old")
    Path("link.wav").symlink_to("real.wav")
    assert heartvoice("song", "--url", fake.url, "--tags", "pop", "-o", "link.wav").exit_code == 0
    assert Path("link.wav").is_symlink()
    assert Path("real.wav").read_bytes().startswith(b"RIFF")


def test_a_name_of_bytes_that_are_no_text_is_printed_escaped(fake: FakeServer) -> None:
    name = os.fsdecode(b"song\xff\x1b[31m.wav")
    result = heartvoice("song", "--url", fake.url, "--tags", "pop", "-o", name)
    assert result.exit_code == 0, result.stderr
    assert r"song\udcff\x1b[31m.wav: 1.6 s" in result.stdout
    assert Path(name).exists()


OPTIONS: list[tuple[list[str], str]] = [
    (["--duration", "nan"], "--duration: expected 1 to 240 s, got nan"),
    (["--duration", "inf"], "--duration: expected"),
    (["--duration", "1e400"], "--duration: expected"),
    (["--duration", "-1"], "--duration: expected"),
    (["--seed", str(2**64)], "--seed: expected"),
    (["--top-k", "0x10"], "--top-k"),
    (["--top-k", "1" * 5000], "--top-k"),
    (["--codec-window", "94"], "--codec-window: expected"),
    (["--consent", "me"], "--consent: expected only with a voice"),
    (["--timeout", "nan"], "timeout"),
    (["--timeout", "-1"], "timeout"),
    (["--no-such-option"], "No such option"),
    (["--tags", "a\x1b[31m" * 10_000], "--tags: expected at most"),
    (["--url", ""], "url|error"),
    (["--url", "http://127.0.0.1:1/x"], "error"),
    (["--url", "127.0.0.1:99999999", "--timeout", "1"], "error"),
    (["--url", "unix:/etc/passwd", "--timeout", "1"], "error"),
    (["--root-certificates", "/dev/null"], "--root-certificates: "),
    (["--serve", "/etc"], "error"),
]


@pytest.mark.parametrize(("options", "message"), OPTIONS, ids=lambda value: value[0][:40] if value else None)
def test_absurd_options_are_refused(options: list[str], message: str) -> None:
    refused(heartvoice("song", "--tags", "pop", *options), message, codes=(1, 2, 3, 4))
    assert listing(Path()) == []


# -------------------------------------------------------------------------------------------------------------- servers


@pytest.mark.parametrize("text", [ESCAPES, "\u202egnp.exe", "\x9b31m", "a\rb", "\x08" * 50])
def test_what_a_server_says_is_shown_and_not_obeyed(fake: FakeServer, text: str) -> None:
    fake.song = scripted(error_response(f"INVALID_ARG: lyrics: {text}"))
    refused(heartvoice("song", "--url", fake.url, "--tags", "pop"), "lyrics: ", codes=(2,))
    assert listing(Path()) == []


def test_what_a_report_says_is_shown_and_not_obeyed(fake: FakeServer) -> None:
    lies = report(preset=ESCAPES, warnings=[ESCAPES, "[bold]\u202e[/x]"])
    fake.song = scripted(event(f"{ESCAPES}[/]", 1, 2), audio(0, 48_000), lies, final())
    result = heartvoice("song", "--url", fake.url, "--tags", "pop")
    assert result.exit_code == 0, result.stderr
    assert not _UNPRINTABLE.search(result.output), ascii(result.output)
    assert r"warning: \x1b]0;owned\x07\x1b[2J" in result.stdout
    assert r"warning: [bold]\u202e[/x]" in result.stdout


def test_plain_text_keeps_every_script_and_escapes_what_a_terminal_obeys() -> None:
    for text in ("naïve café", "日本語", "हिन्दी", "فارسی\u200cها", "👩\u200d🎤", "a b"):
        assert escape_controls(text) == text
    assert escape_controls("\x00\x1b\x7f\x9b\u202e\u2028\ud800") == r"\x00\x1b\x7f\x9b\u202e\u2028\ud800"


# ----------------------------------------------------------------------------------------------------------- processes


def process(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    """The command as a process that may not take much memory."""
    return subprocess.Popen(
        [sys.executable, "-m", "heartvoice.cli.main", *arguments],
        stderr=subprocess.PIPE,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY)),
        **options,
    )


def test_a_reader_that_has_gone_ends_a_command_quietly(fake: FakeServer) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    run = process("song", "--url", fake.url, "--tags", "pop", "--json", stdout=writer)
    os.close(writer)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 1
    assert b"Traceback" not in said, said
    assert b"Exception ignored" not in said, said
    assert Path("song.wav").exists(), "the song is complete; only nobody reads about it"
