"""Songs, covers and stems are signed as they are written, or say why not."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from heartvoice.audio.encode import PartFile, read_tags, source_tags
from heartvoice.cli.signing import open_signing
from heartvoice.client.messages import AudioChunk, Report, Song, StemsChunk, StemsReport
from heartvoice.client.signed_files import check_signed
from heartvoice.client.song_files import SongFiles, SongWriter
from heartvoice.client.stems import Stems
from heartvoice.contracts.claims import Source
from heartvoice.contracts.constants import MIX_STEM_NAMES
from heartvoice.contracts.provenance import Tags
from heartvoice.errors import EngineError, InvalidRequestError, SigningError
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
        return files.commit(report, None, Source(recording))


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


@pytest.mark.parametrize("name", ["cover.wav", "cover.flac", "cover.mp3", "cover.ogg"])
def test_title_and_artist_of_a_recording_stay(tmp_path: Path, name: str) -> None:
    kept = Tags("", "Für Elise", "L. v. B.")
    signer = ManifestSigner(keys())
    for source, signed in ((Source(encoded("flac"), kept), False), (Source(None, kept), False)):
        with SongWriter(tmp_path / name, stems_folder=tmp_path / "stems", signer=signer) as files:
            files.take(AudioChunk(np.zeros((2, 4800), np.float32), 0))
            files.take(StemsChunk(np.zeros((2, 2, 4800), np.float32), 0))
            made = files.commit(Report.from_raw_voice(RAW, recorded=True), None, source)
        for file in made.all:
            found = verify_file(file.path, keys().anchors)
            (ingredient,) = found.ingredients
            assert (found.state, ingredient["signed"]) == ("trusted", signed)
            assert (ingredient["title"], ingredient["description"]) == ("Für Elise", "by L. v. B.")
            again = source_tags(file.path.read_bytes())
            assert (again.title, again.artist) == (kept.title, kept.artist)
            assert read_tags(file.path.read_bytes()).comment == file.comment


def test_an_unsigned_song_takes_the_place_of_a_signed_one_and_its_manifest(tmp_path: Path) -> None:
    write(tmp_path, "song.ogg", signer=ManifestSigner(keys()))
    assert listing(tmp_path) == ["song.c2pa", "song.ogg", "stems"]
    made = write(tmp_path, "song.ogg", signer=None)
    assert not made.audio.signed
    assert verify_file(made.audio.path).state == "unsigned"
    assert listing(tmp_path) == ["song.ogg", "stems"]


class Failing:
    """A signer whose `sign` fails from its `good`-th call on."""

    def __init__(self, error: Exception, good: int = 0) -> None:
        self.error, self.good = error, good

    def sign(self, claim: Any, file_format: str, source: Any, target: Any, *, title: str) -> bytes:
        self.good -= 1
        if self.good >= 0:
            return ManifestSigner(keys()).sign(claim, file_format, source, target, title=title)
        target.write(b"half of it")
        raise self.error


@pytest.mark.parametrize(
    ("name", "good", "error", "reason"),
    [
        ("song.ogg", 0, EngineError("agent: the token is locked"), "agent: the token is locked"),
        ("song.wav", 1, OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        ("song.ogg", 2, KeyError("unforeseen"), "KeyError: 'unforeseen'"),
    ],
)
def test_what_cannot_be_signed_is_kept_and_says_why(
    tmp_path: Path, name: str, good: int, error: Exception, reason: str
) -> None:
    write(tmp_path, name, signer=ManifestSigner(keys()))  # its manifests go with it
    made = write(tmp_path, name, signer=Failing(error, good))
    plain = write(tmp_path / "stems", name, signer=None)
    for number, (file, same) in enumerate(zip(made.all, plain.all, strict=True)):
        assert file.signed == (number < good)
        assert (reason in file.not_signed) == (number >= good)
        assert verify_file(file.path, keys().anchors).state == ("trusted" if number < good else "unsigned")
        if number >= good:
            np.testing.assert_array_equal(soundfile.read(file.path)[0], soundfile.read(same.path)[0])
    with pytest.raises(SigningError, match=rf"{made.all[good].path}: written, but NOT signed: .*{reason[:9]}"):
        check_signed(made.all)
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]


def test_a_manifest_that_has_no_room_beside_its_file_costs_only_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    fill = PartFile.filling

    def filling(part: PartFile) -> Any:
        if part.path.suffix == ".c2pa":
            raise full
        return fill(part)

    monkeypatch.setattr(PartFile, "filling", filling)
    made = write(tmp_path, "song.ogg", signer=ManifestSigner(keys()))
    assert ["No space left on device" in file.not_signed for file in made.all] == [True] * 3
    assert listing(tmp_path) == ["song.ogg", "stems"]


def test_an_interrupted_signature_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "song.wav").write_bytes(b"before")
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, "song.wav", signer=Failing(KeyboardInterrupt()))  # type: ignore[arg-type]
    assert listing(tmp_path) == ["song.wav"]
    assert (tmp_path / "song.wav").read_bytes() == b"before"


def test_results_of_the_client_sign_themselves(tmp_path: Path) -> None:
    audio = np.full((2, 4800), 0.1, np.float32)
    recording = write(tmp_path, "source.wav", signer=ManifestSigner(keys())).audio.path.read_bytes()
    song = Song(audio, Report.from_raw_voice(RAW, recorded=True), {}, stems={"vocals": audio}, source=Source(recording))
    facts = {"seed": 1, "preset": "tiny", "random_weights": True, "sources": ["drums"]}
    stems = Stems({"drums": audio}, StemsReport.from_raw(facts), {}, Source(recording))
    for signer, state in ((ManifestSigner(keys()), "trusted"), (None, "unsigned")):
        files = [
            song.save(tmp_path / "cover.mp3", signer=signer),
            *song.save_stems(tmp_path / "parts", signer=signer).values(),
            *stems.save(tmp_path / "parts", signer=signer).values(),
        ]
        for file in files:
            found = verify_file(file.path, keys().anchors)
            assert (found.state, file.signed) == (state, signer is not None)
            assert [each["signed"] for each in found.ingredients] == [True] * file.signed
    broken = Failing(EngineError("locked"))
    for save, name in ((song.save, "a.flac"), (song.save_stems, "b"), (stems.save, "c")):
        with pytest.raises(SigningError, match="NOT signed: locked"):
            save(tmp_path / name, signer=broken)
    assert {"a.flac", "b", "c"} <= set(listing(tmp_path))


def test_keys_that_do_not_sign_are_found_before_the_work(tmp_path: Path) -> None:
    init_keys(tmp_path, "Studio")
    (tmp_path / "signing.key").unlink()
    (tmp_path / "agent.json").write_text('["/bin/false"]')
    with pytest.raises(EngineError, match="agent /bin/false: no signature"):
        open_signing(str(tmp_path))


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
