"""`heartvoice cover`, `separate` and `similarity`, in-process and as processes."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from typer.testing import Result

from heartvoice import __version__
from heartvoice.audio.encode import write_audio
from heartvoice.cli.option_names import by_option, option_name
from heartvoice.cli.signing import Signing
from heartvoice.contracts.models import SPEAKER_ENCODER
from heartvoice.contracts.provenance import provenance
from heartvoice.contracts.settings import COVER_SETTINGS, STEMS
from heartvoice.errors import EngineError
from heartvoice.evaluation.similarity import meaning
from tests.fakes.server import (
    SOURCES,
    FakeServer,
    audio,
    cover_report,
    final,
    infer_response,
    input_bytes,
    input_raw,
    samples,
    scripted,
    stem_samples,
    stems,
    stems_report,
)
from tests.support.callers import heartvoice, inputs, listing, made  # noqa: F401

pytestmark = pytest.mark.usefixtures("inputs")


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
        "pitch: the converter shifted by +0.0 semitones (--auto-pitch octave), in the band's key\n",
        "measured median F0: 220 Hz in the old vocals, 196 Hz in the new vocals, 130 Hz in the reference; "
        "new against old: -2.0 semitones\n",
        "the server's weights are RANDOM: this is noise, not music",
    ):
        assert text in result.stdout
    assert "NOT CONVERTED" not in result.stdout
    assert "separating: 10/20 frames" in result.stderr
    with soundfile.SoundFile(f"out.{name}") as file:
        assert (file.frames, file.samplerate) == (76_800, 48_000)
        tag = f"AI-generated; heartvoice {__version__}; seed 7; random weights"
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
         "pitch: the converter shifted by -15.0 semitones (--auto-pitch semitone), OUT OF the band's key\n"),
        ({"shift_semitones": 12.0, "shifts_semitones": [0.0, 12.0], "keeps_key": True, "auto_pitch": "octave"},
         "pitch: the converter shifted by +0.0, then +12.0 semitones (--auto-pitch octave), in the band's key\n"),
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


@pytest.mark.parametrize("command", [cover, separate])
def test_what_cannot_be_signed_is_kept_and_the_command_fails(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, command: Any
) -> None:
    class Locked:
        def sign(self, *parts: object, **more: object) -> bytes:
            raise EngineError("agent: the token is locked")

    monkeypatch.setattr(f"heartvoice.cli.{command.__name__}.open_signing", lambda choice: Signing(Locked()))
    result = command(server, *([] if command is cover else ["song.mp3"]), "--json")
    file = "cover.wav" if command is cover else "stems/drums.wav"
    assert result.exit_code == 1
    assert f"error: {Path(file).resolve()}: written, but NOT signed: agent: the token is locked" in result.stderr
    assert soundfile.info(file).frames > 60_000
    facts = json.loads(result.stdout)
    assert facts["unsigned_because"] == "agent: the token is locked"
    assert not (facts if command is cover else facts["stems"]["drums"])["signed"]


def test_stems_of_an_ai_generated_song_say_so(server: FakeServer) -> None:
    tag = provenance(3, random_weights=False)
    write_audio("made.flac", np.zeros((2, 48_000)), tag)
    server.demucs = scripted(stems(0, 4410, 1), stems_report(("vocals",), random_weights=False), final())
    assert separate(server, "made.flac").exit_code == 0
    comment = soundfile.SoundFile("stems/vocals.wav").comment
    assert comment == f"separated by heartvoice {__version__}; source vocals; from: {tag}"


# ------------------------------------------------------------------------------------------------------- similarity

ALONE = "by one judge alone (Resemblyzer {}); missing: CAMPPlus: the server has no weights of it but random ones"


def test_similarity_prints_the_cosine_and_what_it_means(server: FakeServer) -> None:
    result = heartvoice("similarity", "--url", server.url, "song.mp3", "song.mp3")
    assert result.exit_code == 0, result.stderr
    said = f"cosine 1.000 (resemblyzer): {meaning('resemblyzer', 1.0, 6.0)}"
    assert result.stdout == f"{said}\nsame, {ALONE.format('same')}\n"
    assert [request.model_name for request in server.requests] == ["speaker_encoder"] * 2
    assert made() == []


@pytest.mark.parametrize(
    ("cosines", "decided", "verdicts"),
    [
        ((0.95, 0.9), "same (Resemblyzer same, CAMPPlus same)", ("same", "same")),
        ((0.6, 0.1), "different (Resemblyzer different, CAMPPlus different)", ("different", "different")),
        ((0.95, 0.1), "undecided (Resemblyzer same, CAMPPlus different)", ("same", "different")),
    ],
)
def test_two_judges_decide_where_the_server_has_both(
    server: FakeServer, cosines: tuple[float, float], decided: str, verdicts: tuple[str, str]
) -> None:
    def answer(request: Any, context: Any) -> Any:
        piped = input_bytes(request, "file") == b"piped"
        first, second = ([c, np.sqrt(1 - c * c)] if piped else [1.0, 0.0] for c in cosines)
        made = {"encoder": "resemblyzer", "seconds": 12.0, "vectors": {"campplus": second}}
        return infer_response(
            {"EMBEDDING": np.array(first, np.float32), "REPORT": json.dumps(made).encode()}, SPEAKER_ENCODER
        )

    server.speaker_encoder = answer
    result = heartvoice("similarity", "--url", server.url, "voice.flac", "-", "--json", input=b"piped")
    facts = json.loads(result.stdout)
    assert facts["verdict"] == verdicts[0] if verdicts[0] == verdicts[1] else "undecided"
    for engine, cosine, said in zip(("resemblyzer", "campplus"), cosines, verdicts, strict=True):
        judge = facts["judges"][engine]
        assert judge["cosine"] == pytest.approx(cosine, abs=1e-6)
        assert (judge["verdict"], judge["meaning"]) == (said, meaning(engine, judge["cosine"], 12.0))
        assert f"cosine {cosine:.3f} ({engine}): {judge['meaning']}" in result.stderr
    assert facts["decision"] == decided
    assert decided in result.stderr
    assert facts["cosine"] == facts["judges"]["resemblyzer"]["cosine"]
    assert "vectors" not in facts["reports"][0]


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
    assert result.stdout.startswith("cosine 1.000 (resemblyzer): the encoder's weights are RANDOM: this says nothing")
    assert "no judge decided" in result.stdout


# ----------------------------------------------------------------------------------------------------------- errors


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
            assert f"{by_option(setting.doc)} {setting.describe()}. Default: {setting.default:g}." in text
