"""`heartvoice keys` and `heartvoice verify`: exit codes and what they print."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from heartvoice.cli.main import app
from heartvoice.contracts.claims import Claim, Making
from heartvoice.contracts.constants import SAMPLE_RATE_HZ
from heartvoice.provenance.key_folder import load_keys
from heartvoice.provenance.signer import ManifestSigner
from heartvoice.watermark import ALGORITHM, make_key, mark, read_key
from tests.support import music
from tests.support.signing import encoded, keys


def run(*words: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(word) for word in words])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of new keys, which is the default."""
    folder = tmp_path / "keys"
    monkeypatch.setenv("HEARTVOICE_KEYS", str(folder))
    assert run("keys", "init", "--organisation", "Studio")[0] == 0
    return folder


def test_verify_leaves_with_0_for_a_trusted_file_alone(own: Path, tmp_path: Path) -> None:
    song, other, anchors = tmp_path / "song.wav", tmp_path / "other.wav", tmp_path / "others.pem"
    for path, made in ((song, load_keys(own)), (other, keys("Others"))):
        claim = Claim(Making.CREATED, {"heartvoice": "0.1.0", "preset": "tiny", "seed": 7})
        with path.open("w+b") as file:
            ManifestSigner(made).sign(claim, "wav", io.BytesIO(encoded("wav")), file, title=path.name)
    code, out, _ = run("verify", song)
    assert code == 0
    assert f"{song}: trusted: unchanged since it was signed" in out
    assert "signed by Studio, heartvoice signer" in out
    assert "heartvoice 0.1.0, preset tiny, seed 7" in out
    assert "voice: none used" in out
    assert run("verify", other)[0] == 1
    assert "untrusted" in run("verify", other)[1]
    assert run("verify", other, "--any-signer")[0] == 0
    anchors.write_bytes(keys("Others").anchors)
    assert run("verify", other, "--anchors", anchors)[0] == 0
    assert run("verify", song, "--anchors", anchors)[0] == 1
    assert run("verify", song, "--anchors", anchors, "--anchors", own / "anchors.pem")[0] == 0
    data = bytearray(song.read_bytes())
    data[4000] ^= 1  # one sample
    song.write_bytes(data)
    code, out, said = run("verify", song, "--json", "--any-signer")
    result = json.loads(out)
    assert (code, result["state"], result["passed"]) == (1, "changed", False)
    assert result["problems"] == ["assertion.dataHash.mismatch"]
    assert "NOT what was signed" in said
    song.write_bytes(encoded("wav"))
    assert run("verify", song)[:2] == (1, f"{song}: unsigned: no manifest: nothing says where it comes from\n"
        "problem: ManifestNotFound: no JUMBF data found\n")  # fmt: skip


def test_verify_finds_the_mark_of_a_key_and_says_whether_the_manifest_names_it(own: Path, tmp_path: Path) -> None:
    key_file, path = own / "watermark.key", tmp_path / "song.wav"
    marked = mark(np.asarray(0.3 * music.song(14.0, SAMPLE_RATE_HZ)[0], np.float32), read_key(key_file), 0xC0FFEE)
    data = music.encode(marked, SAMPLE_RATE_HZ)
    for payload, named, said in (("00c0ffee", True, ""), ("00c0ffef", False, "the manifest names another payload")):
        claim = Claim(Making.CREATED, {}, watermark={"on": True, "alg": ALGORITHM, "payload": payload})
        with path.open("w+b") as file:
            ManifestSigner(load_keys(own)).sign(claim, "wav", io.BytesIO(data), file, title=path.name)
        code, out, lines = run("verify", path, "--watermark-key", key_file, "--json")
        found = json.loads(out)["watermark"]
        assert (code, found["found"], found["payload"], found["named_by_manifest"]) == (0, True, "00c0ffee", named)
        assert "mark of the key: found, of a song, payload 00c0ffee (score " in lines
        assert said in lines
    make_key(tmp_path / "other.key")
    path.write_bytes(data[: len(data) // 3])
    code, out, _ = run("verify", path, "--watermark-key", tmp_path / "other.key")
    assert (code, "mark of the key: not found (score " in out) == (1, True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("verify", "heartvoice/examples/voice.flac", "--watermark-key", "README.md"),
            "watermark key: expected mode 0600, got",
        ),
        (
            ("verify", "heartvoice/examples/voice.flac", "--watermark-key", "none.key"),
            "watermark key: cannot read 'none.key': No such file",
        ),
        (("verify", "README.md"), "file: expected WAV, FLAC, MP3, M4A or OGG, got something else: 'README.md'"),
        (("verify", "nothing.wav"), "nothing.wav: cannot be read: No such file or directory"),
        (
            ("verify", "heartvoice/examples/voice.flac", "--anchors", "none.pem"),
            "none.pem: cannot be read: No such file",
        ),
        (("verify", "heartvoice/examples/voice.flac", "--anchors", "README.md"), "anchors: expected certificates"),
        (("keys", "init", "--organisation", "a\nb"), "organisation: expected 1 to 64 printable characters"),
        (("keys", "import", "--certificate", "README.md"), "key: expected either --key or --agent"),
        (("keys", "init", "--folder", "README.md"), "keys: expected a folder, got 'README.md'"),
    ],
)
def test_wrong_usage_leaves_with_2(words: tuple[str, ...], message: str) -> None:
    code, _, said = run(*words)
    assert (code, message in said) == (2, True), said


def test_keys_are_there_already_the_second_time(own: Path) -> None:
    key = read_key(own / "watermark.key")
    code, out, _ = run("keys", "init")
    assert (code, "keys are there already" in out, "watermark.key" in out) == (0, True, False)
    assert read_key(own / "watermark.key") == key


def test_init_adds_the_watermark_key_that_older_keys_lack(own: Path) -> None:
    (own / "watermark.key").unlink()
    code, out, _ = run("keys", "init")
    assert (code, "watermark.key: a key that marks songs" in out) == (0, True)
    read_key(own / "watermark.key")
