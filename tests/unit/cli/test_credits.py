"""`heartvoice credits`: the text of the manifest, or else of the tags."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest

from heartvoice.audio.encode import source_tags, write_audio
from heartvoice.contracts.attribution import with_credits
from heartvoice.contracts.claims import Claim, Making
from heartvoice.provenance.signer import ManifestSigner
from tests.support.callers import heartvoice
from tests.support.signing import encoded, keys

COMMENT = "AI-generated; heartvoice 1.2.3; seed 7"
TEXT = "AI-generated song, made with heartvoice 1.2.3."


@pytest.mark.parametrize("name", ["song.wav", "song.flac", "song.mp3", "song.ogg"])
def test_the_tags_text_is_printed(tmp_path: Path, name: str) -> None:
    path = write_audio(tmp_path / name, np.zeros((2, 4800)), with_credits(COMMENT, TEXT)).path
    result = heartvoice("credits", str(path))
    assert (result.exit_code, result.stdout) == (0, f"{TEXT}\n")
    assert "from its tags, which nothing vouches for" in result.stderr
    assert source_tags(path.read_bytes()).comment == COMMENT  # what is made from it does not repeat its credits


def test_the_manifests_text_counts_until_the_file_is_changed(tmp_path: Path) -> None:
    path, claim = tmp_path / "song.wav", Claim(Making.CREATED, {"seed": 1}, attribution="By the manifest.")
    with path.open("w+b") as file:
        ManifestSigner(keys()).sign(claim, "wav", io.BytesIO(encoded("wav")), file, title="song.wav")
    result = heartvoice("credits", str(path), "--json")
    facts = json.loads(result.stdout)
    assert (result.exit_code, facts["attribution"], facts["source"]) == (0, "By the manifest.", "manifest")
    assert "from its manifest, signed by Studio" in result.stderr
    data = bytearray(path.read_bytes())
    data[4000] ^= 1
    path.write_bytes(data)
    result = heartvoice("credits", str(path))
    assert (result.exit_code, result.stdout) == (1, "")
    assert "its manifest is not used: the file was changed since it was signed" in result.stderr
    assert "no attribution" in result.stderr


def test_tags_are_read_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_audio(tmp_path / "song.wav", np.zeros((2, 4800)), with_credits(COMMENT, TEXT)).path
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = heartvoice("credits", str(path))
    assert (result.exit_code, result.stdout) == (0, f"{TEXT}\n")
    assert "the extra 'trust' is not installed" in result.stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("README.md", "file: expected WAV, FLAC, MP3, M4A or OGG, got something else"),
        ("nothing.wav", "nothing.wav: cannot be read: No such file or directory"),
        ("docs", "which is something else"),
    ],
)
def test_what_is_no_audio_file_leaves_with_2(name: str, message: str) -> None:
    result = heartvoice("credits", name)
    assert (result.exit_code, message in result.stderr) == (2, True), result.stderr
