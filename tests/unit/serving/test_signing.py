"""The server's signature of what it encodes: never at the cost of the song."""

from __future__ import annotations

import base64
import errno
from pathlib import Path
from typing import Any

import pytest

from heartvoice.contracts.claims import Claim, Making
from heartvoice.contracts.constants import SIGNING_KEYS_VARIABLE
from heartvoice.contracts.messages import Report
from heartvoice.errors import EngineError, InvalidRequestError
from heartvoice.provenance.key_folder import init_keys
from heartvoice.provenance.signer import ManifestSigner
from heartvoice.provenance.verification import verify_file, verify_stream
from heartvoice.serving.signing import open_signer, sign_file
from tests.support.callers import listing
from tests.support.signing import encoded, keys

CLAIM = Claim(Making.CREATED, {"seed": 7})
RAW = {"seed": 7, "preset": "tiny", "random_weights": False}


def song(folder: Path, file_format: str) -> Path:
    path = folder / f"song.{file_format}"
    path.write_bytes(encoded(file_format))
    return path


@pytest.mark.parametrize("file_format", ["flac", "ogg"])
def test_a_file_is_signed_and_the_report_has_what_belongs_beside_it(tmp_path: Path, file_format: str) -> None:
    path, fields = sign_file(song(tmp_path, file_format), file_format, CLAIM, ManifestSigner(keys()))
    report = Report.from_raw(RAW | fields)
    assert report.signed
    assert bool(report.manifest) == (file_format == "ogg")
    with path.open("rb") as file:
        found = verify_stream(file, file_format, manifest=report.manifest or None, anchors=keys().anchors)
    assert (found.state, found.title) == ("trusted", f"song.{file_format}")


@pytest.mark.parametrize(
    "error", [EngineError("agent /opt/hsm: locked"), OSError(errno.ENOSPC, "No space left"), KeyError("my lyrics")]
)
def test_a_file_whose_signature_fails_is_sent_without(
    tmp_path: Path, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing:
        def sign(self, claim: Any, file_format: str, source: Any, target: Any, *, title: str) -> bytes:
            target.write(b"half")
            raise error

    path, fields = sign_file(song(tmp_path, "wav"), "wav", CLAIM, Failing())
    assert path.read_bytes() == encoded("wav")
    assert fields == {"signed": False, "unsigned_because": "the server's signature failed"}  # not how it signs
    assert ("my lyrics" in caplog.text, "a file is not signed" in caplog.text) == (False, True)
    assert not Report.from_raw(RAW | fields).signed


def test_without_keys_nothing_is_signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SIGNING_KEYS_VARIABLE, raising=False)
    assert open_signer() is None
    path, fields = sign_file(song(tmp_path, "wav"), "wav", CLAIM, None)
    assert (verify_file(path).state, fields["signed"]) == ("unsigned", False)
    assert listing(tmp_path) == ["song.wav"]


def test_the_keys_are_those_that_the_server_was_started_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SIGNING_KEYS_VARIABLE, str(tmp_path / "keys"))
    with pytest.raises(InvalidRequestError, match="keys: none in"):
        open_signer()
    init_keys(tmp_path / "keys", "Studio")
    path, fields = sign_file(song(tmp_path, "mp3"), "mp3", CLAIM, open_signer())
    assert fields == {"signed": True}
    assert verify_file(path, (tmp_path / "keys" / "anchors.pem").read_bytes()).state == "trusted"


@pytest.mark.parametrize("manifest", [7, "no base64!", None])
def test_a_manifest_that_is_none_is_the_servers_fault(manifest: object) -> None:
    report = Report.from_raw(RAW | {"manifest": base64.b64encode(b"jumbf").decode()})
    assert report.manifest == b"jumbf"
    with pytest.raises(EngineError, match="REPORT: manifest: expected base64"):
        _ = Report.from_raw(RAW | {"manifest": manifest}).manifest
