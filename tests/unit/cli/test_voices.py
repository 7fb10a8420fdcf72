"""`heartvoice voice`: what its commands print and keep."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from heartvoice.cli.main import app
from heartvoice.cli.registered_voices import SingingVoice, singing_voice
from heartvoice.client import Recording, RegisteredVoice
from heartvoice.contracts.attribution import consent_record
from heartvoice.errors import InvalidRequestError
from heartvoice.judges import voice_checks
from tests.support.voices import PHRASE, REFERENCE, Says


def run(*words: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["voice", *(str(word) for word in words)])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Options of an enrolment, in the registry that is the default."""
    monkeypatch.setenv("HEARTVOICE_REGISTRY", str(tmp_path / "registry"))
    monkeypatch.setenv("HEARTVOICE_REGISTRY_KEYS", str(tmp_path / "keys"))
    monkeypatch.setattr(voice_checks, "open_voice_checks", lambda locale, **_: Says(words=True, speaker=None))
    (tmp_path / "phrase.wav").write_bytes(PHRASE)
    (tmp_path / "voice.flac").write_bytes(REFERENCE)
    return ["--phrase", str(tmp_path / "phrase.wav"), "--reference", str(tmp_path / "voice.flac")]


def test_a_voice_is_enrolled_approved_exported_and_purged(recordings: list[str], tmp_path: Path) -> None:
    code, out, said = run("consent", "--speaker", "J. Doe", "--purpose", "demos", "--json")
    asked = json.loads(out)
    assert code == 0
    assert asked["text"] in said
    code, out, said = run("enrol", asked["id"], *recordings, "--json")
    made = json.loads(out)
    assert (code, made["state"], made["record"]["id"]) == (0, "unverified", asked["id"])
    assert "speaker: undecided: so it is" in said
    assert run("approve", made["id"], "--by", "Op", "--why", "heard it")[0] == 0
    code, out, _ = run("show", made["id"])
    assert "approved by Op: heard it" in out
    assert "the signature is right, and the log names this record" in out
    assert made["id"] in run("list")[1]
    assert run("list", "--owner", "somebody")[1:] == ("", "somebody has no voice here\n")
    packed = tmp_path / "mine.zip"
    assert run("export", made["id"], "-o", packed)[0] == 0
    assert zipfile.ZipFile(packed).read("reference-1.flac") == REFERENCE
    assert packed.stat().st_mode & 0o777 == 0o600
    assert "revoked" in run("revoke", made["id"])[1]
    code, out, _ = run("purge", made["id"])
    assert "signed tombstone: {" in out
    assert json.loads(run("list", "--json")[1])[0]["state"] == "purged"


def test_mistakes_are_named(recordings: list[str], tmp_path: Path) -> None:
    code, _, said = run("list")
    assert (code, "the first `heartvoice voice consent` makes one" in said) == (2, True)
    assert not (tmp_path / "registry").exists()
    assert run("consent", "--speaker", "J", "--purpose", "p", "--locale", "xx")[0] == 2
    code, _, said = run("enrol", "consent_1", *recordings)
    assert (code, "consent: there is none 'consent_1'" in said) == (2, True)
    code, _, said = run("enrol", "consent_1", "--phrase", tmp_path, *recordings[2:])
    assert (code, "phrase: expected a file" in said) == (2, True)
    code, _, said = run("show", "voice_1", "--owner", "me")
    assert (code, "voice: there is none 'voice_1'" in said) == (2, True)
    code, _, said = run("export", "voice_1", "-o", tmp_path / "x.tar")
    assert (code, "ending in .zip" in said) == (2, True)


def test_a_registered_voice_stands_for_its_reference_and_its_consent_record(
    recordings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEARTVOICE_OWNER", "studio")
    asked = json.loads(run("consent", "--speaker", "J. Doe", "--purpose", "demos", "--json")[1])
    voice = json.loads(run("enrol", asked["id"], *recordings, "--json")[1])["id"]
    with pytest.raises(InvalidRequestError, match="is unverified and cannot sing"):
        singing_voice(voice, "", None, None)
    run("approve", voice, "--by", "Op", "--why", "heard it")
    found = singing_voice(voice, "", None, None)
    assert isinstance(found.voice, Recording)
    assert found.voice.file == REFERENCE
    assert consent_record({"voice_consent": found.consent}) == asked["id"]
    with pytest.raises(InvalidRequestError, match="consent: expected none beside a registered voice"):
        singing_voice(voice, "J. Doe", None, None)
    with pytest.raises(InvalidRequestError, match=f"voice: there is none '{voice}'"):
        singing_voice(voice, "", None, "thief")
    file = singing_voice(str(tmp_path / "voice.flac"), "J. Doe", None, None)
    assert isinstance(file.voice, Recording)
    assert (file.voice.file, file.consent) == (REFERENCE, "J. Doe")
    assert singing_voice("", "", None, None) == SingingVoice()


def test_without_a_registry_here_an_id_is_for_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    voice = "voice_" + "0" * 32
    monkeypatch.delenv("HEARTVOICE_REGISTRY", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert singing_voice(voice, "", None, None) == SingingVoice(RegisteredVoice(voice))
    with pytest.raises(InvalidRequestError, match="registry: expected a folder with"):
        singing_voice(voice, "", None, None, gateway=False)
    with pytest.raises(InvalidRequestError, match="registry: expected a folder with"):
        singing_voice(voice, "", tmp_path / "chosen", None)
