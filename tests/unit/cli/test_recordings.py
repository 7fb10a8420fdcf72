"""`heartvoice cover`, `separate` and `similarity`, in-process and as processes."""

from __future__ import annotations

import json
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
from typer.testing import Result

from heartvoice import __version__
from heartvoice.audio.encode import write_audio
from heartvoice.cli.options import option_name
from heartvoice.client import large_files, recordings
from heartvoice.contracts.constants import MAX_LOCAL_FILE_BYTES
from heartvoice.contracts.models import SPEAKER_ENCODER
from heartvoice.contracts.provenance import provenance
from heartvoice.contracts.settings import COVER_SETTINGS, STEMS
from heartvoice.evaluation.similarity import meaning
from tests.fakes.server import (
    SOURCES,
    FakeServer,
    audio,
    cover_report,
    endless_song,
    endless_stems,
    error_response,
    final,
    infer_response,
    input_bytes,
    input_raw,
    samples,
    scripted,
    silent_song,
    stem_samples,
    stems,
    stems_report,
)
from tests.support.callers import heartvoice, listing
from tests.support.music import encode

INPUTS = ("song.mp3", "voice.flac")


@pytest.fixture(autouse=True)
def inputs(folder: Path) -> Path:
    """A folder with two files that nobody decodes."""
    for name in INPUTS:
        (folder / name).write_bytes(name.encode())
    return folder


def made() -> list[str]:
    """What a command has left beside its inputs."""
    return [name for name in listing(Path()) if name not in INPUTS]


def cover(server: FakeServer, *arguments: str, **options: Any) -> Result:
    """Run `heartvoice cover` with all that it needs."""
    needed = ("song.mp3", "--voice", "voice.flac", "--consent", "me")
    return heartvoice("cover", "--url", server.url, *needed, *arguments, **options)


def separate(server: FakeServer, *arguments: str, **options: Any) -> Result:
    """Run `heartvoice separate`."""
    return heartvoice("separate", "--url", server.url, *arguments, **options)


# ----------------------------------------------------------------------------------------------------------- covers


@pytest.mark.parametrize("name", ["wav", "flac", "mp3", "ogg"])
def test_cover_writes_a_tagged_file_and_says_what_changed(server: FakeServer, name: str) -> None:
    result = cover(server, "-o", f"out.{name}")
    assert result.exit_code == 0, result.stderr
    for text in (
        f"out.{name}: 1.6 s, seed 7, preset tiny",
        "similarity to the voice: 0.41 before, 0.83 after (resemblyzer; one voice from 0.72 sung, 0.81 recorded)",
        "pitch: the converter shifted by +0.0 semitones (auto_pitch octave), in the band's key\n",
        "measured median F0: 220 Hz in the old vocals, 196 Hz in the new vocals, 130 Hz in the reference; "
        "new against old: -2.0 semitones\n",
        "the server's weights are RANDOM: this is noise, not music",
    ):
        assert text in result.stdout
    assert "NOT CONVERTED" not in result.stdout
    assert "separating: 10/20 frames" in result.stderr
    with soundfile.SoundFile(f"out.{name}") as file:
        assert (file.frames, file.samplerate) == (76_800, 48_000)
        tag = f"AI-generated; heartvoice {__version__}; seed 7; voice 0123456789ab; random weights"
        assert file.comment == tag
        assert name in ("mp3", "ogg") or np.abs(file.read().T - samples(0, 76_800)).max() < 1e-6
    assert made() == [f"out.{name}"]


def test_files_consent_and_settings_reach_the_server(server: FakeServer) -> None:
    ranges = [setting for setting in COVER_SETTINGS if setting.minimum is not None]
    arguments = [text for setting in ranges for text in (option_name(setting), str(setting.minimum))]
    assert cover(server, *arguments, "--live", "--no-vocals", "convert", "--auto-pitch", "octave").exit_code == 0
    (request,) = server.requests
    assert input_bytes(request, "file") == b"song.mp3"
    assert input_bytes(request, "voice") == b"voice.flac"
    assert input_bytes(request, "voice_consent") == b"me"
    assert input_bytes(request, "no_vocals") == b"convert"
    assert input_bytes(request, "auto_pitch") == b"octave"
    formats = {"FP32": "<f", "INT64": "<q"}
    for setting in ranges:
        assert struct.unpack(formats[setting.dtype], input_raw(request, setting.name)) == (setting.minimum,)
    assert input_raw(request, "live") == b"\1"
    cover(server)
    assert {tensor.name for tensor in server.requests[1].inputs} == {"file", "voice", "voice_consent", "events"}
    assert made() == ["cover.wav"]


def test_the_recording_or_the_voice_comes_from_standard_input(server: FakeServer) -> None:
    arguments = ("cover", "--url", server.url, "--consent", "me", "--voice")
    assert heartvoice(*arguments, "voice.flac", "-", input=b"piped\xff").exit_code == 0
    assert input_bytes(server.requests[0], "file") == b"piped\xff"
    assert heartvoice(*arguments, "-", "song.mp3", input=b"piped\xff").exit_code == 0
    assert input_bytes(server.requests[1], "voice") == b"piped\xff"


def test_an_unconverted_cover_is_said_loudly_and_not_called_ai_generated(server: FakeServer) -> None:
    passed = cover_report(converted=False, similarity={}, f0={}, warnings=["voice: short"], random_weights=False)
    server.cover = scripted(audio(0, 48_000), passed, final())
    result = cover(server, "--json")
    facts = json.loads(result.stdout)
    assert (facts["converted"], facts["warnings"], facts["codes_file"]) == (False, ["voice: short"], None)
    assert facts["comment"] == f"passed through heartvoice {__version__}, not converted"
    assert "NOT CONVERTED: no vocals were found, so this is the recording as it was" in result.stderr
    assert "warning: voice: short" in result.stderr
    assert "similarity" not in result.stderr
    assert "RANDOM" not in result.stderr


def test_judgements_that_could_not_be_made_are_left_out(server: FakeServer) -> None:
    nothing = {"encoder": "resemblyzer", "before": None, "after": None}
    f0 = {"source_median_hz": None, "result_median_hz": 196.0, "voice_median_hz": None, "change_semitones": None}
    server.cover = scripted(audio(0, 48_000), cover_report(similarity=nothing, f0=f0), final())
    result = cover(server)
    assert result.exit_code == 0, result.output
    assert "similarity" not in result.stdout
    assert "measured median F0: 196 Hz in the new vocals\n" in result.stdout


@pytest.mark.parametrize(
    ("pitch", "line"),
    [
        ({"shift_semitones": -15.0, "keeps_key": False, "auto_pitch": "semitone"},
         "pitch: the converter shifted by -15.0 semitones (auto_pitch semitone), OUT OF the band's key\n"),
        ({"shift_semitones": 12.0, "shifts_semitones": [0.0, 12.0], "keeps_key": True, "auto_pitch": "octave"},
         "pitch: the converter shifted by +0.0, then +12.0 semitones (auto_pitch octave), in the band's key\n"),
    ],
)  # fmt: skip
def test_what_was_shifted_is_not_what_was_measured(server: FakeServer, pitch: dict[str, Any], line: str) -> None:
    f0 = {"source_median_hz": 500.0, "result_median_hz": 42.0, "change_semitones": -42.7}
    server.cover = scripted(audio(0, 48_000), cover_report(f0=f0, pitch=pitch), final())
    printed = cover(server).stdout
    assert line in printed
    assert "in the new vocals; new against old: -42.7 semitones\n" in printed
    assert "shifted by -42.7" not in printed


def test_json_of_a_cover_has_the_whole_report(server: FakeServer) -> None:
    result = cover(server, "--json", "-o", "out.flac")
    facts = json.loads(result.stdout)
    assert facts["file"] == str(Path("out.flac").resolve())
    assert facts["converted"] is True
    assert facts["report"]["similarity"] == {"encoder": "resemblyzer", "before": 0.41, "after": 0.83}
    assert facts["report"]["voice_consent"] == "me"


# ------------------------------------------------------------------------------------------------------------ stems


@pytest.mark.parametrize("name", ["wav", "flac"])
def test_separate_writes_all_stems_into_a_new_folder(server: FakeServer, name: str) -> None:
    result = separate(server, "song.mp3", "-o", "out", "--format", name)
    assert result.exit_code == 0, result.stderr
    assert made() == ["out"]
    assert listing(Path("out")) == sorted(f"{source}.{name}" for source in SOURCES)
    for index, source in enumerate(SOURCES):
        with soundfile.SoundFile(f"out/{source}.{name}") as file:
            assert (file.samplerate, file.subtype) == (44_100, "PCM_24")
            assert file.comment == f"separated by heartvoice {__version__}; source {source}; random weights"
            assert np.abs(file.read().T - stem_samples(0, 66_150)[index]).max() < 1e-6
        assert f"{Path('out').resolve()}/{source}.{name}\n" in result.stdout
    assert "4 stems of 1.5 s, preset tiny" in result.stdout
    assert "the server's weights are RANDOM: nothing was separated" in result.stdout
    assert "separating: 10/19 frames" in result.stderr


def test_wanted_stems_go_into_an_existing_folder_and_replace_what_has_their_names(server: FakeServer) -> None:
    Path("stems").mkdir()
    Path("stems/vocals.wav").write_bytes(b"old")
    Path("stems/notes.txt").write_bytes(b"mine")
    result = separate(server, "-", "--sources", "vocals,drums", "--json", input=b"piped")
    facts = json.loads(result.stdout)
    assert list(facts["stems"]) == ["drums", "vocals"]
    assert facts["stems"]["vocals"]["sample_rate_hz"] == 44_100
    assert facts["report"]["sources"] == ["drums", "vocals"]
    assert listing(Path("stems")) == ["drums.wav", "notes.txt", "vocals.wav"]
    assert soundfile.info("stems/vocals.wav").frames == 66_150
    assert input_bytes(server.requests[0], "file") == b"piped"
    assert input_bytes(server.requests[0], "sources") == b"vocals,drums"


def test_loud_stems_are_turned_down_together(server: FakeServer) -> None:
    chunk = stems(0, 4410, 2)
    loud = np.stack([np.full((2, 4410), 0.5, np.float32), np.full((2, 4410), 2.0, np.float32)])
    chunk.infer_response.raw_output_contents[0] = loud.tobytes()
    server.demucs = scripted(chunk, stems_report(("drums", "vocals"), random_weights=False, warnings=["loud"]), final())
    result = separate(server, "song.mp3")
    assert "all turned down by 6.0 dB, since the loudest peak was 2.00" in result.stdout
    assert "warning: loud" in result.stdout
    assert "RANDOM" not in result.stdout
    levels = [np.abs(soundfile.read(f"stems/{name}.wav")[0]).max() for name in ("drums", "vocals")]
    assert levels == [pytest.approx(0.25, abs=1e-6), pytest.approx(1, abs=1e-6)]


def test_stems_of_an_ai_generated_song_say_so(server: FakeServer) -> None:
    tag = provenance(3, random_weights=False)
    write_audio("made.flac", np.zeros((2, 48_000)), tag)
    server.demucs = scripted(stems(0, 4410, 1), stems_report(("vocals",), random_weights=False), final())
    assert separate(server, "made.flac").exit_code == 0
    comment = soundfile.SoundFile("stems/vocals.wav").comment
    assert comment == f"separated by heartvoice {__version__}; source vocals; from: {tag}"


# ------------------------------------------------------------------------------------------------------- similarity

ALONE = "One judge alone: resemblyzer. `heartvoice evaluate` asks a second one."


def test_similarity_prints_the_cosine_and_what_it_means(server: FakeServer) -> None:
    result = heartvoice("similarity", "--url", server.url, "song.mp3", "song.mp3")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"cosine 1.000 (resemblyzer)\n{meaning('resemblyzer', 1.0, 6.0)}\n{ALONE}\n"
    assert [request.model_name for request in server.requests] == ["speaker_encoder"] * 2
    assert made() == []


def test_similarity_as_json_goes_by_the_shorter_recording(server: FakeServer) -> None:
    def answer(request: Any, context: Any) -> Any:
        seconds = 4.0 if input_bytes(request, "file") == b"piped" else 9.0
        vector = np.array([0.6, 0.8] if seconds == 4.0 else [1.0, 0.0], np.float32)
        made = {"encoder": "resemblyzer", "seconds": seconds, "warnings": ["quiet"] if seconds == 4.0 else []}
        return infer_response({"EMBEDDING": vector, "REPORT": json.dumps(made).encode()}, SPEAKER_ENCODER)

    server.speaker_encoder = answer
    result = heartvoice("similarity", "--url", server.url, "voice.flac", "-", "--json", input=b"piped")
    facts = json.loads(result.stdout)
    assert facts["cosine"] == pytest.approx(0.6)
    assert facts["meaning"] == meaning("resemblyzer", facts["cosine"], 4.0)
    assert facts["seconds"] == [9, 4]
    assert facts["warnings"] == ["B: quiet"]
    assert "warning: B: quiet" in result.stderr


def test_random_encoders_say_nothing(server: FakeServer) -> None:
    made = {"encoder": "resemblyzer", "seconds": 9, "random_weights": True}
    outputs = {"EMBEDDING": np.ones(1, np.float32), "REPORT": json.dumps(made).encode()}
    server.speaker_encoder = lambda request, context: infer_response(outputs, SPEAKER_ENCODER)
    result = heartvoice("similarity", "--url", server.url, "voice.flac", "song.mp3")
    assert result.stdout.startswith("cosine 1.000 (resemblyzer)\nthe encoder's weights are RANDOM: this says nothing")
    assert "judge" not in result.stdout


# ----------------------------------------------------------------------------------------------------------- errors

COVER = ("cover", "song.mp3", "--voice", "voice.flac", "--consent", "me")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            COVER[:4],
            "consent: missing, expected who consents to the use of the voice and how, 1 to 500 characters",
        ),
        ((*COVER[:5], "x" * 501), "consent: expected at most 500 characters, got 501"),
        (("cover", "song.mp3", "--consent", "me"), "voice: expected a reference of 3 to 60 s"),
        (("cover", "--voice", "voice.flac"), "Missing argument"),
        (("cover", "missing.mp3", *COVER[2:]), "recording: cannot read 'missing.mp3': No such file or directory"),
        (("cover", ".", *COVER[2:]), "recording: expected a file, got '.', which is a folder"),
        (("cover", "empty", *COVER[2:]), "recording empty: expected an encoded recording, got an empty file"),
        (("cover", "big", *COVER[2:]), f"recording big: expected at most {MAX_LOCAL_FILE_BYTES} bytes, got"),
        (("cover", "-", "--voice", "-", *COVER[4:]), "recording, voice: expected at most one of them on standard"),
        (("cover", "-", *COVER[2:]), "recording -: expected an encoded recording, got an empty file"),
        ((*COVER, "--voice", "missing"), "--voice: cannot read 'missing': No such file or directory"),
        ((*COVER, "--no-vocals", "keep"), "no_vocals: expected one of error, passthrough, convert, got 'keep'"),
        ((*COVER, "--vocal-gain-db", "13"), "vocal_gain_db: expected -24 to 12 dB, got 13.0"),
        ((*COVER, "--vocal-gain-db", "nan"), "vocal_gain_db: expected -24 to 12 dB, got nan"),
        ((*COVER, "-o", "out.txt"), "output: expected a name ending in"),
        ((*COVER, "-o", "no/out.wav"), "output: no such folder: "),
        ((*COVER, "--duration", "3"), "No such option: --duration"),
        ((*COVER, "--timeout", "0"), "timeout_s: expected a number above 0, got 0.0"),
        (("separate", "missing.mp3"), "recording: cannot read 'missing.mp3': No such file or directory"),
        (("separate", "song.mp3", "-o", "voice.flac"), "output: expected a folder, got 'voice.flac'"),
        (("separate", "song.mp3", "-o", "no/out"), "output: no such folder: "),
        (("separate", "song.mp3", "--format", "aac"), "format: expected wav, flac, mp3, ogg, got 'aac'"),
        (("separate", "song.mp3", "--sources", ""), "sources: expected names such as vocals, got ''"),
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
        ("seed: expected 0 or more, got -1", "seed: expected 0 or more, got -1"),
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "number", "code"),
    [("cover", signal.SIGINT, 130), ("separate", signal.SIGINT, 130), ("separate", signal.SIGTERM, 143)],
)
def test_signals_cancel_on_the_server_and_leave_no_file(
    server: FakeServer, inputs: Path, command: str, number: signal.Signals, code: int
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


@pytest.mark.parametrize("command", ["cover", "separate", "similarity"])
def test_help_teaches_by_an_example(command: str) -> None:
    result = heartvoice(command, "--help")
    assert result.exit_code == 0
    text = re.sub(r"[│\s]+", " ", result.stdout)
    assert f"For example: heartvoice {command} " in text
    for option in ("--json", "--url", "--serve REPOSITORY", "--tls", "--timeout"):
        assert option in text
    for setting in COVER_SETTINGS if command == "cover" else ():
        assert setting is STEMS or f"{option_name(setting)} " in text
        if setting.minimum is not None:
            assert f"{setting.doc} {setting.describe()}. Default: {setting.default:g}." in text


@pytest.mark.slow
def test_a_terminal_is_no_recording(server: FakeServer, inputs: Path) -> None:
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


@pytest.mark.slow
def test_long_stems_do_not_stay_in_memory(server: FakeServer, inputs: Path) -> None:
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
    line = [sys.executable, "-m", "heartvoice.cli.main", "separate", "--url", server.url, "song.mp3"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    # By way of a small process: a child's peak counts what its parent had when it forked.
    measure = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run(
        [sys.executable, "-c", measure, *line], cwd=inputs, env=environment, capture_output=True, text=True, check=True
    )
    assert soundfile.info("stems/vocals.wav").frames == n_chunk * n_chunks
    assert int(done.stdout) * 1024 < 170e6
