"""`heartvoice song` in a voice, and `--stems` of songs and covers, in-process and as processes."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from typer.testing import Result

from heartvoice import __version__
from heartvoice.cli.option_names import option_name
from heartvoice.contracts.constants import AUTO_PITCH_MODES, NO_VOCALS_MODES
from heartvoice.contracts.settings import VOICE_SETTINGS
from tests.fakes.server import (
    FakeServer,
    audio,
    cover_report,
    error_response,
    event,
    final,
    input_bytes,
    input_raw,
    job_report,
    mix_stem_samples,
    mix_stems,
    samples,
    scripted,
    stream_response,
)
from tests.support.callers import heartvoice, inputs, listing, made  # noqa: F401

SUNG = ("song", "--tags", "pop", "--voice", "voice.flac", "--consent", "me")
COVER = ("cover", "song.mp3", "--voice", "voice.flac", "--consent", "me")
JOBS = pytest.mark.parametrize("job", [("song", "--tags", "pop"), SUNG, COVER], ids=["song", "sung", "cover"])
TAG = f"AI-generated; heartvoice {__version__}; seed 7"


pytestmark = pytest.mark.usefixtures("inputs")


def run(server: FakeServer, job: tuple[str, ...], *arguments: str, **options: Any) -> Result:
    """Run a command against the fake server."""
    return heartvoice(job[0], "--url", server.url, *job[1:], *arguments, **options)


# ---------------------------------------------------------------------------------------------------------- voices


def test_a_song_in_a_voice_is_tagged_and_says_what_changed(server: FakeServer) -> None:
    result = run(server, SUNG)
    assert result.exit_code == 0, result.stderr
    for text in (
        "song.wav: 1.6 s, seed 7, preset tiny\n",
        "similarity to the voice: 0.41 before, 0.83 after (resemblyzer; one voice from 0.72 sung, 0.81 recorded)\n",
        "pitch: the converter shifted by +0.0 semitones (--auto-pitch octave), in the band's key\n",
        "measured median F0: 220 Hz in the old vocals, 196 Hz in the new vocals, 130 Hz in the reference; "
        "new against old: -2.0 semitones\n",
    ):
        assert text in result.stdout
    assert "NOT CONVERTED" not in result.stdout
    assert soundfile.SoundFile("song.wav").comment == f"{TAG}; random weights"
    assert made() == ["song.wav"]


def test_json_of_a_song_in_a_voice_has_what_a_covers_has(server: FakeServer) -> None:
    facts = [json.loads(run(server, job, "--json").stdout) for job in (SUNG, COVER)]
    assert facts[0].keys() == facts[1].keys()
    for fact in facts:
        assert (fact["converted"], fact["stems"], fact["codes_file"]) == (True, None, None)
        assert fact["report"]["similarity"]["after"] == 0.83
        assert fact["report"]["f0"]["change_semitones"] == -2.0
        assert fact["report"]["pitch"]["shift_semitones"] == 0.0


@pytest.mark.parametrize("job", [SUNG, COVER], ids=["sung", "cover"])
def test_consent_may_come_from_a_file_which_no_process_list_shows(server: FakeServer, job: tuple[str, ...]) -> None:
    Path("consent.txt").write_text("J. Doe, by letter\n")
    assert run(server, (*job[:-1], "@consent.txt")).exit_code == 0
    (request,) = server.requests
    assert input_bytes(request, "voice_consent") == b"J. Doe, by letter"
    assert "did you mean @consent.txt?" in run(server, (*job[:-1], "consent.txt")).stderr
    assert run(server, (*job[:-1], "-"), input=b"\xef\xbb\xbfJ. Doe,  by letter\r\n").exit_code == 0
    assert input_bytes(server.requests[-1], "voice_consent") == b"J. Doe, by letter"
    Path("consent.txt").unlink()
    assert "--consent: cannot read 'consent.txt'" in run(server, (*job[:-1], "@consent.txt")).stderr


def test_voice_consent_and_modes_reach_the_server(server: FakeServer) -> None:
    assert run(server, SUNG, "--no-vocals", "error", "--auto-pitch", "octave").exit_code == 0
    (request,) = server.requests
    assert input_bytes(request, "voice") == b"voice.flac"
    assert input_bytes(request, "voice_consent") == b"me"
    assert input_bytes(request, "no_vocals") == b"error"
    assert input_bytes(request, "auto_pitch") == b"octave"
    run(server, SUNG)
    assert {tensor.name for tensor in server.requests[1].inputs} == {"tags", "voice", "voice_consent", "events"}


@pytest.mark.parametrize("job", [SUNG, COVER], ids=["sung", "cover"])
def test_how_a_reference_is_checked_reaches_the_server(server: FakeServer, job: tuple[str, ...]) -> None:
    assert run(server, job, "--reference-check", "strict", "--reference-separate").exit_code == 0
    (request,) = server.requests
    assert input_bytes(request, "reference_check") == b"strict"
    assert input_raw(request, "reference_separate") == b"\x01"
    refused = run(server, job, "--reference-check", "loose")
    assert refused.exit_code == 2
    assert "--reference-check: expected one of " in refused.stderr
    assert "got 'loose'" in refused.stderr
    assert len(server.requests) == 1, "refused before the job"


def test_the_voice_comes_from_standard_input(server: FakeServer) -> None:
    assert run(server, ("song", "--tags", "pop", "--consent", "me"), "--voice", "-", input=b"piped\xff").exit_code == 0
    assert input_bytes(server.requests[0], "voice") == b"piped\xff"


def test_the_same_codes_are_sung_by_another_voice(server: FakeServer) -> None:
    run(server, SUNG, "--return-codes")
    again = run(server, ("song",), "--codes", "song.codes.npy", *SUNG[3:], "-o", "again.wav")
    assert again.exit_code == 0, again.stderr
    names = {tensor.name for tensor in server.requests[1].inputs}
    assert names == {"codes", "voice", "voice_consent", "events"}


def test_an_unconverted_song_is_said_loudly_and_still_ai_generated(server: FakeServer) -> None:
    server.song = scripted(audio(0, 48_000), cover_report(converted=False, random_weights=False), final())
    result = run(server, SUNG)
    assert (
        "NOT CONVERTED: no vocals were found, so this is the song as it was written; see --no-vocals" in result.stdout
    )
    assert soundfile.SoundFile("song.wav").comment == TAG


def test_all_stages_show_themselves(server: FakeServer) -> None:
    stages = ("lm", "codec", "separate", "convert", "mix")
    events = [event(stage, done, 20) for done in (1, 20) for stage in stages]
    server.song = scripted(*events, audio(0, 48_000), cover_report(), final())
    shown = [line.split()[0] for line in run(server, SUNG).stderr.splitlines()]
    assert shown == ["writing:", "decoding:", "separating:", "converting:", "mixing:"] * 2


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (SUNG[:5], "--consent: missing, expected who consents to the use of the voice and how, 1 to 500 characters"),
        ((*SUNG[:3], "--consent", "me"), "--consent: expected only with a voice"),
        ((*SUNG[:3], "--no-vocals", "error"), "--no-vocals: expected only with a voice"),
        ((*SUNG[:3], "--auto-pitch", "off"), "--auto-pitch: expected only with a voice"),
        ((*SUNG[:3], "--svc-steps", "5"), "--svc-steps: expected only with a voice"),
        ((*SUNG[:3], "--no-live"), "--live: expected only with a voice"),
        ((*SUNG, "--auto-pitch", "on"), "--auto-pitch: expected one of off, exact, semitone, octave, got 'on'"),
        ((*COVER, "--auto-pitch", "on"), "--auto-pitch: expected one of off, exact, semitone, octave, got 'on'"),
        ((*SUNG, "--no-vocals", "keep"), "--no-vocals: expected one of error, passthrough, convert, got 'keep'"),
        ((*SUNG, "--prompt", "26"), "--prompt: expected 3 to 25 s, got 26.0"),
        ((*SUNG, "--voice", "missing"), "--voice: cannot read 'missing': No such file or directory"),
        ((*SUNG, "--voice", "-", "--lyrics", "-"), "--lyrics, --voice: expected at most one of them on standard input"),
        (("cover", "-", *COVER[2:-1], "@-"), "recording, --consent: expected at most one of them on standard input"),
        ((*SUNG, "--stems", "voice.flac"), "--stems: expected a folder, got 'voice.flac', which is something else"),
        ((*SUNG, "--stems", "no/parts"), "--stems: no such folder: "),
        ((*COVER, "--stems", "no/parts"), "--stems: no such folder: "),
        ((*SUNG, "--stems", ".", "-o", "vocals.wav"), "--stems: expected another place than the song's own, got "),
        (("song", "--tags", "pop", "--stems"), "Option '--stems' requires an argument"),
        ((*COVER, "--no-stems"), "No such option: --no-stems"),
    ],
)
def test_invalid_input_is_one_line_and_code_2(server: FakeServer, arguments: tuple[str, ...], text: str) -> None:
    result = run(server, arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {text}")
    assert result.stderr.count("\n") == 1
    assert not result.stdout
    assert not server.requests
    assert made() == []


def test_help_has_a_panel_of_all_that_is_about_the_voice() -> None:
    shown = heartvoice("song", "--help").stdout
    panel = shown.partition("─ Voice ─")[2].partition("╰")[0]
    text = re.sub(r"[│\s]+", " ", panel)
    for option in ("--voice", "--consent", "--no-vocals", "--auto-pitch", *map(option_name, VOICE_SETTINGS)):
        assert f" {option} " in text
    for modes in (NO_VOCALS_MODES, AUTO_PITCH_MODES):
        assert re.search(r"[\[|]?".join(modes), text)
    assert "--stems FOLDER" in re.sub(r"[│\s]+", " ", shown.partition("─ Voice ─")[0])
    assert "--duration" not in text
    examples = re.sub(r"[│\s]+", " ", shown)
    assert "For example: heartvoice song --lyrics @lyrics.txt --tags " in examples
    assert "heartvoice song --lyrics @lyrics.txt --voice me.wav --consent " in examples


# ----------------------------------------------------------------------------------------------------------- stems


@JOBS
@pytest.mark.parametrize("name", ["wav", "flac"])
def test_stems_stand_beside_the_song_in_its_format_and_add_up(
    server: FakeServer, job: tuple[str, ...], name: str
) -> None:
    result = run(server, job, "-o", f"out.{name}", "--stems", "parts")
    assert result.exit_code == 0, result.stderr
    assert made() == [f"out.{name}", "parts"]
    assert listing(Path("parts")) == [f"instrumental.{name}", f"vocals.{name}"]
    comment = soundfile.SoundFile(f"out.{name}").comment
    parts = []
    for stem, wanted in zip(("instrumental", "vocals"), mix_stem_samples(0, 76_800), strict=True):
        path = Path(f"parts/{stem}.{name}")
        assert f"{stem}: {path.resolve()}\n" in result.stdout
        with soundfile.SoundFile(path) as file:
            assert (file.samplerate, file.frames) == (48_000, 76_800)
            assert file.comment == (
                f"separated by heartvoice {__version__}; source {stem}; random weights; from: {comment}"
            )
            parts.append(file.read().T)
        assert np.abs(parts[-1] - wanted).max() < 1e-6
    assert np.abs(sum(parts) - samples(0, 76_800)).max() < 1e-6


def test_json_has_the_stems_and_their_own_gain(server: FakeServer) -> None:
    loud = mix_stem_samples(0, 4_800) + np.array([2, -1.5], np.float32)[:, None, None]
    server.song = scripted(
        stream_response({"AUDIO": loud.sum(axis=0), "START": [0]}),
        stream_response({"STEMS": loud, "START": [0]}),
        job_report({"stems"}),
        final(),
    )
    result = run(server, SUNG[:3], "--stems", "parts", "--json")
    facts = json.loads(result.stdout)
    assert list(facts["stems"]) == ["instrumental", "vocals"]
    song_db = -20 * np.log10(max(1, np.abs(loud.sum(axis=0)).max()))
    stems_db = -20 * np.log10(np.abs(loud).max())
    assert facts["gain_db"] == pytest.approx(song_db)
    for name, stem in facts["stems"].items():
        assert stem["file"] == str(Path(f"parts/{name}.wav").resolve())
        assert stem["gain_db"] == pytest.approx(stems_db)
        assert stem["gain_to_song_db"] == pytest.approx(stems_db - song_db)
    assert (
        f"stems turned down by {song_db - stems_db:.1f} dB against the song, since their loudest peak" in result.stderr
    )


def test_stems_go_into_an_existing_folder_and_replace_what_has_their_names(server: FakeServer) -> None:
    Path("parts").mkdir()
    Path("parts/vocals.wav").write_bytes(b"old")
    Path("parts/notes.txt").write_bytes(b"mine")
    assert run(server, COVER, "--stems", "parts").exit_code == 0
    assert listing(Path("parts")) == ["instrumental.wav", "notes.txt", "vocals.wav"]
    assert soundfile.info("parts/vocals.wav").frames == 76_800


@JOBS
@pytest.mark.parametrize(
    ("end", "code", "text"),
    [
        ([error_response("UNAVAILABLE: svc: died")], 3, "svc: died"),
        ([error_response("NOT_FOUND: voice_key: unknown")], 1, "voice_key: unknown"),
        ([job_report({"voice", "stems"}), final()], 1, "STEMS: expected 48000 samples in all, as of AUDIO, got 40000"),
        ([mix_stems(40_001, 7_999)], 1, "STEMS: expected the chunk that begins at 40000, got START 40001"),
        ([], 1, "{model}: the stream ended after 48000 samples without its report and final response"),
    ],
)
def test_a_stream_that_breaks_leaves_neither_song_nor_stems(
    server: FakeServer, job: tuple[str, ...], end: list[Any], code: int, text: str
) -> None:
    server.song = server.cover = scripted(audio(0, 48_000), mix_stems(0, 40_000), *end)
    result = run(server, job, "--stems", "parts", "--json")
    assert (result.exit_code, result.stderr) == (code, f"error: {text.format(model=job[0])}\n")
    assert not result.stdout
    assert made() == []


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_full_disk_leaves_neither_song_nor_stems(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    synced: list[int] = []

    def full(descriptor: int) -> None:
        synced.append(descriptor)
        if len(synced) == nth:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    result = run(server, SUNG, "--stems", "parts")
    path = Path(("song.wav", "parts/instrumental.wav", "parts/vocals.wav")[nth - 1]).resolve()
    assert result.exit_code == 1
    assert result.stderr.endswith(f"error: {path}: No space left on device\n")
    assert made() == []


def test_what_is_written_with_keys_is_signed_until_a_sample_changes(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEARTVOICE_KEYS", "own-keys")
    assert heartvoice("keys", "init").exit_code == 0
    for job, name in ((SUNG, "song.wav"), (COVER, "cover.wav")):
        facts = json.loads(run(server, job, "--json").stdout)
        assert (facts["signed"], facts["unsigned_because"]) == (True, None)
        checked = heartvoice("verify", name, "--json")
        assert (checked.exit_code, json.loads(checked.stdout)["state"]) == (0, "trusted"), checked.output
        data = bytearray(Path(name).read_bytes())
        data[2000] ^= 1
        Path(name).write_bytes(data)
        assert heartvoice("verify", name).exit_code == 1
    plain = json.loads(run(server, SUNG, "--json", "--keys", "off").stdout)
    assert (plain["signed"], plain["unsigned_because"]) == (False, "--keys off")
