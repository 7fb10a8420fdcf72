"""The example voice and recording: what the package carries, and `heartvoice examples`, which copies them."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import heartvoice
from heartvoice.audio.recordings import read_recording, read_voice
from heartvoice.cli.main import app

FOLDER = Path(heartvoice.__file__).parent / "examples"
MOST_BYTES = 1_500_000


def test_the_voice_is_accepted_without_a_warning() -> None:
    voice = read_voice({"voice": np.array([(FOLDER / "voice.flac").read_bytes()], np.object_)})
    assert voice.warnings == ()
    assert 10 < voice.duration_s < 20


def test_the_recording_is_stereo_with_room_to_spare() -> None:
    recording = read_recording({"file": np.array([(FOLDER / "recording.flac").read_bytes()], np.object_)})
    assert recording.warnings == ()
    assert (recording.sample_rate_hz, len(recording.audio)) == (44_100, 2)
    assert 15 < recording.duration_s < 20
    assert 0.4 < np.abs(recording.audio).max() < 0.6
    assert np.abs(np.diff(recording.audio, axis=0)).max() > 0.05  # not one channel twice


def test_the_files_are_small_and_those_of_the_notice() -> None:
    named = dict(re.findall(r"^([0-9a-f]{64})  (\S+)$", (FOLDER / "NOTICE").read_text(), re.MULTILINE))
    found = {hashlib.sha256(path.read_bytes()).hexdigest(): path.name for path in FOLDER.glob("*.flac")}
    assert named == found
    assert len(found) == 2
    assert all(path.stat().st_size < MOST_BYTES for path in FOLDER.iterdir())


def test_the_command_copies_them_and_overwrites_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    result = CliRunner().invoke(app, ["examples", str(folder)])
    assert result.exit_code == 0, result.stderr
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        path.name: path.read_bytes() for path in FOLDER.iterdir()
    }
    (folder / "voice.flac").write_bytes(b"my own")
    again = CliRunner().invoke(app, ["examples", str(folder)])
    assert again.exit_code == 2
    assert "would overwrite voice.flac, recording.flac, NOTICE; name another folder" in again.stderr
    assert (folder / "voice.flac").read_bytes() == b"my own"


@pytest.mark.parametrize("named", ["README.md", "docs/tutorial/first-cover.md"])
def test_the_way_from_an_installed_package_is_told(named: str) -> None:
    text = (Path(heartvoice.__file__).parents[1] / named).read_text()
    assert "heartvoice examples" in text
