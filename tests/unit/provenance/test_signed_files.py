"""Signed files: two readers accept them, and see every change."""

from __future__ import annotations

import http.server
import io
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import c2pa
import encypher_c2pa
import pytest
import soundfile

from heartvoice.contracts.claims import Claim, Making, Source
from heartvoice.errors import EngineError, InvalidRequestError
from heartvoice.provenance.formats import MEDIA_TYPES, container_of
from heartvoice.provenance.keys import callback_keys
from heartvoice.provenance.manifest import COMPOSITE, TRAINED, voice_id
from heartvoice.provenance.signer import ManifestSigner
from heartvoice.provenance.verification import Verification, verify_file, verify_stream
from tests.support.signing import ENCODINGS, VOICE_KEY, encoded, keys

SHA256 = "ab" * 32
SONG = Claim(
    Making.CREATED,
    {"seed": 7, "settings": {"temperature": 0.5}, "steps": [1, 2]},
    voice_sha256=SHA256,
    consent_record="consent_1",
    watermark={"alg": "org.example.mark", "payload": "01020304"},
    attribution="A song.",
)


def sign(claim: Claim, file_format: str, data: bytes | None = None) -> tuple[bytes, bytes]:
    """The signed file, and the manifest that belongs beside it."""
    target = io.BytesIO()
    source = io.BytesIO(encoded(file_format) if data is None else data)
    beside = ManifestSigner(keys()).sign(claim, file_format, source, target, title=f"song.{file_format}")
    return target.getvalue(), beside


def check(data: bytes, file_format: str, beside: bytes = b"") -> Verification:
    return verify_stream(io.BytesIO(data), file_format, manifest=beside or None, anchors=keys().anchors)


def second_opinion(data: bytes, file_format: str, beside: bytes = b"") -> str:
    """What another implementation says, offline and without telemetry."""
    report = encypher_c2pa.verify(
        data, MEDIA_TYPES[file_format], manifest_store=beside or None, trust_pem=keys().anchors.decode(),
        no_default_trust=True, telemetry=False, online=False,
    )  # fmt: skip
    return str(report["validation_state"])


@pytest.mark.parametrize("file_format", ENCODINGS)
def test_two_readers_trust_a_signed_file_until_a_bit_changes(file_format: str) -> None:
    data, beside = sign(SONG, file_format)
    assert bool(beside) == (file_format == "ogg")
    assert container_of(io.BytesIO(data)) == file_format
    found = check(data, file_format, beside)
    assert (found.state, found.problems) == ("trusted", ())
    assert second_opinion(data, file_format, beside) == "Trusted"
    assert verify_stream(io.BytesIO(data), file_format, manifest=beside or None).state == "untrusted"
    at = data.rindex(encoded(file_format)[-400:]) + 200 if file_format != "wav" else 4000
    changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    assert check(changed, file_format, beside).state == "changed"
    assert second_opinion(changed, file_format, beside) == "Invalid"


@pytest.mark.parametrize("file_format", ENCODINGS)
def test_a_signature_leaves_samples_and_tags_alone(file_format: str) -> None:
    data, _ = sign(SONG, file_format)
    before, after = soundfile.read(io.BytesIO(encoded(file_format))), soundfile.read(io.BytesIO(data))
    assert (before[0] == after[0]).all()


def test_a_manifest_says_how_a_song_was_made_and_never_names_its_voice_by_hash() -> None:
    data, _ = sign(SONG, "wav")
    found = check(data, "wav")
    assert found.actions == ("c2pa.created", "c2pa.watermarked.bound")
    assert found.source_type == TRAINED
    assert found.signer == "Studio, heartvoice signer"
    voice = {"used": True, "id": voice_id(VOICE_KEY, SHA256), "consent_record": "consent_1"}
    assert found.facts == {
        "seed": 7, "settings": {"temperature": 0.5}, "steps": "1, 2", "making": "created", "voice": voice,
        "attribution": "A song.",
    }  # fmt: skip
    assert found.soft_binding == {"alg": "org.example.mark", "value": "01020304"}
    assert SHA256[:12].encode() not in data
    assert bytes.fromhex(SHA256) not in data


def test_voice_ids_depend_on_the_key_and_the_voice() -> None:
    ids = {voice_id(key, voice * 32) for key in (VOICE_KEY, bytes(32)) for voice in ("ab", "cd")}
    assert len(ids) == 4


@pytest.mark.parametrize(
    ("making", "action", "source_type"),
    [
        (Making.CONVERTED, "c2pa.edited", COMPOSITE),
        (Making.PASSED, "c2pa.transcoded", ""),
        (Making.SEPARATED, "c2pa.edited", "http://cv.iptc.org/newscodes/digitalsourcetype/algorithmicallyEnhanced"),
    ],
)
def test_what_is_made_from_a_recording_names_it(making: Making, action: str, source_type: str) -> None:
    signed, _ = sign(SONG, "mp3")
    for recording, has_manifest in ((signed, True), (encoded("flac"), False), (encoded("ogg"), False), (None, False)):
        data, _ = sign(Claim(making, {"seed": 1}, source=Source(recording)), "flac")
        found = check(data, "flac")
        assert found.state == "trusted", found.problems
        assert found.actions == ("c2pa.opened", action)
        assert found.source_type == source_type
        assert [each["signed"] for each in found.ingredients] == [has_manifest]
        assert second_opinion(data, "flac") == "Trusted"
        assert found.facts["voice"] == {"used": False}


def test_a_damaged_recording_is_still_an_ingredient() -> None:
    data, _ = sign(Claim(Making.CONVERTED, {"seed": 1}, source=Source(sign(SONG, "wav")[0][:-2000])), "wav")
    assert check(data, "wav").state == "trusted"


@pytest.fixture
def requests() -> Iterator[tuple[str, list[str]]]:
    """The address of an HTTP server on this host, and what it was asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *parts: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/manifest.c2pa", asked
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("file_format", ["wav", "flac", "mp3"])
def test_nothing_is_fetched_for_a_file_that_names_a_remote_manifest(
    requests: tuple[str, list[str]], file_format: str
) -> None:
    url, asked = requests
    data = names_remote(url, file_format)
    found = check(data, file_format)
    assert found.state == "unsigned"
    assert url in found.problems[0]
    cover, _ = sign(Claim(Making.CONVERTED, {"seed": 1}, source=Source(data)), "wav")
    assert check(cover, "wav").state == "trusted"
    assert not asked


def names_remote(url: str, file_format: str) -> bytes:
    """A file without a manifest that says where on the network one is."""
    created = {"actions": [{"action": "c2pa.created", "digitalSourceType": TRAINED}]}
    made = {
        "claim_generator_info": [{"name": "test", "version": "1"}],
        "assertions": [{"label": "c2pa.actions.v2", "data": created}],
    }
    target = io.BytesIO()
    with c2pa.Builder.from_json(json.dumps(made)) as builder:
        builder.set_no_embed()
        builder.set_remote_url(url)
        signer = c2pa.Signer.from_callback(keys().sign, c2pa.C2paSigningAlg.ES256, keys().chain.decode())
        builder.sign(signer, MEDIA_TYPES[file_format], io.BytesIO(encoded(file_format)), target)
    return target.getvalue()


def test_files_of_all_kinds_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "song.ogg"
    data, beside = sign(SONG, "ogg")
    path.write_bytes(data)
    assert verify_file(path, keys().anchors).state == "unsigned"
    (tmp_path / "song.c2pa").write_bytes(beside)
    found = verify_file(path, keys().anchors)
    assert (found.state, found.manifest_file) == ("trusted", str(tmp_path / "song.c2pa"))
    assert verify_file(path, keys("Others").anchors).state == "untrusted"
    (tmp_path / "song.c2pa").write_bytes(beside[:-500])
    assert verify_file(path, keys().anchors).state == "invalid"
    path.write_bytes(b"#!/bin/sh\n")
    with pytest.raises(InvalidRequestError, match="expected WAV, FLAC, MP3, M4A or OGG"):
        verify_file(path)
    with pytest.raises(InvalidRequestError, match="which is something else"):
        verify_file(tmp_path)
    with pytest.raises(InvalidRequestError, match="anchors: expected certificates as PEM"):
        verify_file(path, b"none")


def test_a_file_whose_name_is_no_text_is_signed_by_the_escaped_name() -> None:
    target, title = io.BytesIO(), os.fsdecode(b"song\xff.wav")
    ManifestSigner(keys()).sign(SONG, "wav", io.BytesIO(encoded("wav")), target, title=title)
    assert check(target.getvalue(), "wav").title == r"song\udcff.wav"


def test_a_signature_that_fails_says_why() -> None:
    def fail(message: bytes) -> bytes:
        raise EngineError("agent: the token is locked")

    made = callback_keys(keys().chain, fail, voice_key=VOICE_KEY, anchors=keys().anchors)
    with pytest.raises(EngineError, match="agent: the token is locked"):
        ManifestSigner(made).sign(SONG, "wav", io.BytesIO(encoded("wav")), io.BytesIO(), title="song.wav")


def test_a_full_disk_is_an_error_of_the_system() -> None:
    with Path("/dev/full").open("r+b", buffering=0) as full, pytest.raises(OSError, match="No space left"):
        ManifestSigner(keys()).sign(SONG, "wav", io.BytesIO(encoded("wav")), full, title="song.wav")
