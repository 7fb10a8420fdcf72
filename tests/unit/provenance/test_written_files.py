"""Songs, covers and stems are signed as they are written, or say why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heartvoice.cli.signing import open_signing
from heartvoice.client.messages import AudioChunk, Report, StemsChunk
from heartvoice.client.song_files import SongFiles, SongWriter
from heartvoice.contracts.constants import MIX_STEM_NAMES
from heartvoice.errors import EngineError, InvalidRequestError
from heartvoice.provenance.key_folder import init_keys
from heartvoice.provenance.manifest import voice_id
from heartvoice.provenance.signer import ManifestSigner
from heartvoice.provenance.verification import verify_file
from tests.support.callers import listing
from tests.support.signing import VOICE_KEY, encoded, keys

SHA256 = "cd" * 32
RAW = {
    "seed": 7, "preset": "tiny", "random_weights": False, "settings": {"temperature": 1.0}, "warnings": [],
    "networks": {"lm": "official"}, "converted": True, "voice_sha256": SHA256, "voice_consent": "me, J. Doe",
}  # fmt: skip


def write(folder: Path, name: str, *, signer: Any, recording: bytes | None = None, **raw: Any) -> SongFiles:
    """0.1 s of a song or cover with its stems."""
    audio = 0.1 * np.random.default_rng(0).standard_normal((2, 4800)).astype(np.float32)
    report = Report.from_raw_voice({**RAW, **raw}, recorded=recording is not None)
    with SongWriter(folder / name, stems_folder=folder / "stems", signer=signer) as files:
        files.take(AudioChunk(audio, 0))
        files.take(StemsChunk(np.stack([audio, 0 * audio]), 0))
        return files.commit(report, None, recording=recording)


@pytest.mark.parametrize("name", ["song.wav", "song.flac", "song.mp3", "song.ogg"])
def test_a_song_and_its_stems_are_signed(tmp_path: Path, name: str) -> None:
    made = write(tmp_path, name, signer=ManifestSigner(keys()))
    for file in (made.audio, *made.stems.values()):
        found = verify_file(file.path, keys().anchors)
        assert (found.state, file.signed) == ("trusted", True)
        assert found.facts["voice"] == {"used": True, "id": voice_id(VOICE_KEY, SHA256)}
        content = file.path.read_bytes()
        assert SHA256[:12].encode() not in content
        assert b"J. Doe" not in content
    assert [verify_file(made.stems[stem].path).facts["stem"] for stem in MIX_STEM_NAMES] == list(MIX_STEM_NAMES)


def test_a_cover_carries_the_manifest_of_its_recording(tmp_path: Path) -> None:
    signer = ManifestSigner(keys())
    song = write(tmp_path, "song.flac", signer=signer).audio.path.read_bytes()
    cover = verify_file(write(tmp_path, "cover.wav", signer=signer, recording=song).audio.path, keys().anchors)
    assert (cover.state, cover.facts["making"]) == ("trusted", "converted")
    assert [each["signed"] for each in cover.ingredients] == [True]
    passed = write(tmp_path, "same.wav", signer=signer, recording=encoded("wav"), converted=False).audio.path
    found = verify_file(passed, keys().anchors)
    assert (found.actions, found.source_type) == (("c2pa.opened", "c2pa.transcoded"), "")
    assert found.facts["voice"] == {"used": False}


def test_an_unsigned_song_takes_the_place_of_a_signed_one_and_its_manifest(tmp_path: Path) -> None:
    write(tmp_path, "song.ogg", signer=ManifestSigner(keys()))
    assert listing(tmp_path) == ["song.c2pa", "song.ogg", "stems"]
    made = write(tmp_path, "song.ogg", signer=None)
    assert not made.audio.signed
    assert verify_file(made.audio.path).state == "unsigned"
    assert listing(tmp_path) == ["song.ogg", "stems"]


def test_a_song_that_cannot_be_signed_is_not_written(tmp_path: Path) -> None:
    class Broken:
        def sign(self, *parts: object, **more: object) -> bytes:
            raise EngineError("provenance: the token is locked")

    (tmp_path / "song.ogg").write_bytes(b"before")
    with pytest.raises(EngineError, match="the token is locked"):
        write(tmp_path, "song.ogg", signer=Broken())
    assert listing(tmp_path) == ["song.ogg"]
    assert (tmp_path / "song.ogg").read_bytes() == b"before"


def test_keys_are_those_of_the_default_folder_unless_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEARTVOICE_KEYS", str(tmp_path / "keys"))
    assert open_signing(None).unsigned == f"no keys in {tmp_path / 'keys'}; `heartvoice keys init` makes some"
    init_keys(tmp_path / "keys", "Studio")
    assert open_signing(None).signer is not None
    assert open_signing(str(tmp_path / "keys")).signer is not None
    assert (open_signing("off").signer, open_signing("off").unsigned) == (None, "--keys off")
    with pytest.raises(InvalidRequestError, match=r"none in .*other"):
        open_signing(str(tmp_path / "other"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert open_signing(None).unsigned == "the extra 'trust' is not installed"
