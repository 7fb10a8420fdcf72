"""`heartvoice weights pull` against a stand-in: what passes, what never does, and what is kept for the next time."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from heartvoice.cli import weights as cli
from heartvoice.weights import catalogue
from heartvoice.weights.pull import INCOMPLETE, exclusive
from tests.fakes.hub import HubServer, sha256
from tests.support.callers import heartvoice
from tests.support.published import (
    BROKEN,
    GEN,
    LM,
    LM_FILES,
    LM_WANTED,
    SHARD,
    SHARD_AT,
    named,
    on_disk,
    plain_demucs,
    pull,
    verify,
)

TOKENIZER = {"tokenizer.json": b'{"model": {}}', "gen_config.json": b'{"text_bos_id": 1}', "README.md": b"a card"}


@pytest.fixture
def lm(hub: HubServer) -> str:
    """The language model is published; its revision."""
    return hub.publish(LM, LM_FILES)


@pytest.fixture
def seed_vc(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """seed-vc is published; its hashes are not known."""
    files = {name: f"bytes of {name}".encode() for name in named("seed-vc").files}
    hub.publish("Plachta/Seed-VC", files, "gpl-3.0")
    sets = tuple(replace(each, known={}) if each.name == "seed-vc" else each for each in catalogue.WEIGHTS)
    monkeypatch.setattr(catalogue, "WEIGHTS", sets)
    return files


def lock_of(weights: Path) -> Any:
    return json.loads((weights / "weights.lock").read_text())["sets"]


def test_files_land_in_the_layout_of_the_export_and_in_the_lock(hub: HubServer, lm: str, weights: Path) -> None:
    result = pull(hub, weights, "heartmula")
    assert result.exit_code == 0, result.stderr
    assert on_disk(weights) == [f"HeartMuLa-oss-3B/{name}" for name in LM_WANTED]
    assert not (weights / INCOMPLETE).exists()
    entry = lock_of(weights)["heartmula"]
    assert entry["revision"] == lm
    for name in LM_WANTED:
        path = f"HeartMuLa-oss-3B/{name}"
        assert (weights / path).read_bytes() == LM_FILES[name]
        assert entry["files"][path]["sha256"] == sha256(LM_FILES[name])
    assert "Apache-2.0" in result.stderr
    assert "model card: apache-2.0" in result.stderr


def test_files_of_the_root_are_those_two_alone(hub: HubServer, weights: Path) -> None:
    hub.publish(GEN, TOKENIZER)
    assert pull(hub, weights, "heartmula-gen").exit_code == 0
    assert on_disk(weights) == ["gen_config.json", "tokenizer.json"]


def test_complete_folder_is_verified_without_network(hub: HubServer, lm: str, weights: Path) -> None:
    pull(hub, weights, "heartmula")
    hub.requests.clear()
    result = pull(hub, weights, "heartmula")
    assert result.exit_code == 0
    assert "4 files verified, 0 of them new" in " ".join(result.stderr.split())
    assert hub.requests == []


def test_broken_connection_is_resumed_at_the_byte(hub: HubServer, lm: str, weights: Path) -> None:
    hub.cuts[SHARD] = list(BROKEN)
    result = pull(hub, weights, "heartmula")
    assert result.exit_code == 3
    assert "what has come is kept" in result.stderr
    assert SHARD_AT not in on_disk(weights)
    hub.requests.clear()
    assert pull(hub, weights, "heartmula").exit_code == 0
    kept = [request.start for request in hub.downloads(SHARD)]
    assert len(kept) == 1
    assert kept[0] is not None
    assert 900 <= kept[0] <= 1000  # up to the client's own block
    assert (weights / SHARD_AT).read_bytes() == LM_FILES[SHARD]


def test_one_lost_connection_is_not_the_users_business(hub: HubServer, lm: str, weights: Path) -> None:
    hub.cuts[SHARD] = [1000, 500]
    assert pull(hub, weights, "heartmula").exit_code == 0
    assert (weights / SHARD_AT).read_bytes() == LM_FILES[SHARD]
    assert len(hub.downloads(SHARD)) == 3


def test_server_without_ranges_starts_again(hub: HubServer, lm: str, weights: Path) -> None:
    hub.cuts[SHARD] = list(BROKEN)
    pull(hub, weights, "heartmula")
    hub.ranges = False
    assert pull(hub, weights, "heartmula").exit_code == 0
    assert (weights / SHARD_AT).read_bytes() == LM_FILES[SHARD]


@pytest.mark.parametrize("size", [100, 3000])
def test_file_of_another_length_never_passes(hub: HubServer, lm: str, weights: Path, size: int) -> None:
    hub.sent_instead[SHARD] = b"x" * size
    result = pull(hub, weights, "heartmula")
    assert result.exit_code == 3
    assert "2048" in result.stderr
    assert str(size) in result.stderr
    assert SHARD_AT not in on_disk(weights)


@pytest.mark.parametrize("name", [SHARD, "config.json"])
def test_tampered_file_never_passes(hub: HubServer, lm: str, weights: Path, name: str) -> None:
    content = LM_FILES[name]
    hub.sent_instead[name] = b"X" + content[1:]
    result = pull(hub, weights, "heartmula")
    assert result.exit_code == 1
    assert name in result.stderr
    assert "expected" in result.stderr
    assert f"HeartMuLa-oss-3B/{name}" not in on_disk(weights)
    assert not list((weights / INCOMPLETE).glob("*"))
    assert verify(weights).exit_code == 1
    hub.sent_instead.clear()
    assert pull(hub, weights, "heartmula").exit_code == 0


def test_damaged_remainder_of_an_earlier_attempt_never_passes(hub: HubServer, lm: str, weights: Path) -> None:
    hub.cuts[SHARD] = list(BROKEN)
    pull(hub, weights, "heartmula")
    (partial,) = (weights / INCOMPLETE).glob("*.part")
    content = partial.read_bytes()
    partial.write_bytes(b"X" + content[1:])
    result = pull(hub, weights, "heartmula")
    assert result.exit_code == 1
    assert f"expected sha256 {sha256(LM_FILES[SHARD])}" in result.stderr
    assert pull(hub, weights, "heartmula").exit_code == 0


def test_known_hash_is_refused_before_the_first_byte(hub: HubServer, weights: Path) -> None:
    hub.publish("funasr/campplus", {"campplus_cn_common.bin": b"something else"})
    result = pull(hub, weights, "campplus")
    assert result.exit_code == 1
    assert "expected sha256 3388cf5fd3493c9ac9c69851d8e7a8badcfb4f3dc631020c4961371646d5ada8" in result.stderr
    assert sha256(b"something else") in result.stderr
    assert hub.downloads("campplus_cn_common.bin") == []


def test_moved_branch_changes_nothing(hub: HubServer, lm: str, weights: Path) -> None:
    pull(hub, weights, "heartmula")
    hub.publish(LM, {**LM_FILES, SHARD: b"newer"})
    (weights / SHARD_AT).unlink()
    assert pull(hub, weights, "heartmula").exit_code == 0
    assert (weights / SHARD_AT).read_bytes() == LM_FILES[SHARD]


def test_first_attempt_decides_the_revision_even_if_nothing_came(hub: HubServer, lm: str, weights: Path) -> None:
    hub.cuts["config.json"] = [0] * len(BROKEN)
    assert pull(hub, weights, "heartmula").exit_code == 3
    assert all(path.stat().st_size == 0 for path in (weights / INCOMPLETE).iterdir())
    hub.publish(LM, {**LM_FILES, SHARD: b"newer"})
    assert pull(hub, weights, "heartmula").exit_code == 0
    assert (weights / SHARD_AT).read_bytes() == LM_FILES[SHARD]


def test_revision_that_is_gone_is_refused(hub: HubServer, lm: str, weights: Path) -> None:
    pull(hub, weights, "heartmula")
    hub.publish(LM, {**LM_FILES, SHARD: b"newer"})
    del hub.repositories[LM].commits[lm]
    (weights / SHARD_AT).unlink()
    result = pull(hub, weights, "heartmula")
    assert result.exit_code == 1
    assert f"expected revision {lm}, which is not there" in result.stderr


def test_another_revision_in_answer_is_refused(hub: HubServer, lm: str, weights: Path) -> None:
    pull(hub, weights, "heartmula")
    hub.announced_commit = "f" * 40
    (weights / SHARD_AT).unlink()
    result = pull(hub, weights, "heartmula")
    assert result.exit_code == 1
    assert f"expected revision {lm}, got {'f' * 40}" in result.stderr


def test_rewritten_revision_is_refused(hub: HubServer, lm: str, weights: Path) -> None:
    pull(hub, weights, "heartmula")
    other = bytes(len(LM_FILES[SHARD]))
    hub.repositories[LM].commits[lm][SHARD] = other
    (weights / SHARD_AT).unlink()
    hub.requests.clear()
    result = pull(hub, weights, "heartmula")
    assert result.exit_code == 1
    assert f"{SHARD_AT}: expected sha256 {sha256(LM_FILES[SHARD])} (weights.lock), got {sha256(other)}" in result.stderr
    assert hub.downloads(SHARD) == []


def test_lock_alone_fetches_its_revision_elsewhere(hub: HubServer, lm: str, weights: Path, tmp_path: Path) -> None:
    pull(hub, weights, "heartmula")
    hub.publish(LM, {**LM_FILES, SHARD: b"newer"})
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(weights / "weights.lock", other)
    assert pull(hub, other, "heartmula").exit_code == 0
    assert (other / SHARD_AT).read_bytes() == LM_FILES[SHARD]


def test_changed_file_on_disk_is_refused_and_left_alone(hub: HubServer, lm: str, weights: Path) -> None:
    pull(hub, weights, "heartmula")
    changed = b"X" + LM_FILES[SHARD][1:]
    (weights / SHARD_AT).write_bytes(changed)
    result = pull(hub, weights, "heartmula")
    assert result.exit_code == 1
    assert f"expected sha256 {sha256(LM_FILES[SHARD])}, got {sha256(changed)}" in result.stderr
    assert (weights / SHARD_AT).read_bytes() == changed


def test_file_fetched_by_other_means_is_taken_over(hub: HubServer, lm: str, weights: Path) -> None:
    (weights / SHARD_AT).parent.mkdir(parents=True)
    (weights / SHARD_AT).write_bytes(LM_FILES[SHARD])
    assert pull(hub, weights, "heartmula").exit_code == 0
    assert hub.downloads(SHARD) == []
    assert lock_of(weights)["heartmula"]["files"][SHARD_AT]["sha256"] == sha256(LM_FILES[SHARD])


def test_full_disk_is_found_before_the_first_byte(
    hub: HubServer, lm: str, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=64 * 2**20 + 4000))
    result = pull(hub, weights, "heartmula")
    assert result.exit_code == 3
    assert "0.00 GB are to come" in result.stderr
    assert "only 0.07 GB are" in result.stderr
    assert on_disk(weights) == []
    assert hub.downloads(SHARD) == []


def test_file_that_is_missing_from_a_repository_is_named(hub: HubServer, weights: Path) -> None:
    hub.publish(LM, {"config.json": b"{}"})
    result = pull(hub, weights, "heartmula")
    assert result.exit_code == 1
    assert "no file *.safetensors" in result.stderr


@pytest.mark.parametrize("name", [SHARD, "config.json"])
def test_stand_in_satisfies_the_librarys_own_downloader(hub: HubServer, lm: str, tmp_path: Path, name: str) -> None:
    """So that what passes here is not just two mistakes that agree."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    metadata = get_hf_file_metadata(hf_hub_url(LM, name, endpoint=hub.url))
    assert (metadata.commit_hash, metadata.size) == (lm, len(LM_FILES[name]))
    path = hf_hub_download(LM, name, local_dir=tmp_path, cache_dir=tmp_path / "cache", endpoint=hub.url)
    assert Path(path).read_bytes() == LM_FILES[name]


# ------------------------------------------------------------------------------------------------- publishers that fail


@pytest.mark.parametrize(("status", "code"), [(503, 3), (403, 3), (404, 3)])
def test_refusing_hub_is_an_error_of_one_line(hub: HubServer, weights: Path, status: int, code: int) -> None:
    hub.status = status
    result = pull(hub, weights, "heartmula")
    assert result.exit_code == code
    assert LM in result.stderr
    assert str(status) in result.stderr
    assert result.stderr.count("\n") == 1


def test_unreachable_hub_is_an_error_of_one_line(weights: Path) -> None:
    result = heartvoice("weights", "pull", "--dir", str(weights), "--mirror", "http://127.0.0.1:9")
    assert result.exit_code == 3
    assert "cannot be reached" in result.stderr
    assert result.stderr.count("\n") == 1


def test_offline_mode_is_named(hub: HubServer, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    result = pull(hub, weights, "heartmula")
    assert result.exit_code == 3
    assert "HF_HUB_OFFLINE" in result.stderr


def test_mirror_that_is_no_hub_is_named(hub: HubServer, weights: Path) -> None:
    hub.status = 200
    result = pull(hub, weights, "heartmula")
    assert result.exit_code == 3
    assert "does not answer as a hub" in result.stderr


def test_unknown_repository_and_closed_one_are_told_apart(hub: HubServer, weights: Path) -> None:
    assert "not there, or private" in pull(hub, weights, "heartmula").stderr
    hub.publish(LM, LM_FILES)
    hub.repositories[LM].gated = True
    assert "set HF_TOKEN" in pull(hub, weights, "heartmula").stderr


def test_token_reaches_the_hub_but_not_its_storage(
    hub: HubServer, lm: str, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_" + "a" * 34)
    hub.repositories[LM].gated = True
    assert pull(hub, weights, "heartmula").exit_code == 0
    assert {(request.path.startswith("/storage/"), request.authorized) for request in hub.requests} == {
        (False, True),
        (True, False),
    }


def test_second_pull_in_one_folder_is_refused(hub: HubServer, lm: str, weights: Path) -> None:
    with exclusive(weights):
        result = pull(hub, weights, "heartmula")
    assert result.exit_code == 3
    assert "another pull is running there" in result.stderr


# ------------------------------------------------------------------------------------------------------------- licences


def test_gpl_is_not_fetched_unasked(hub: HubServer, seed_vc: dict[str, bytes], weights: Path) -> None:
    result = pull(hub, weights, "seed-vc")
    assert result.exit_code == 2
    assert "GPL-3.0" in result.stderr
    assert "--yes-gpl" in result.stderr
    assert on_disk(weights) == []
    assert all(hub.downloads(name) == [] for name in seed_vc)


def test_gpl_is_fetched_when_agreed(hub: HubServer, seed_vc: dict[str, bytes], weights: Path) -> None:
    assert pull(hub, weights, "seed-vc", arguments=("--yes-gpl",)).exit_code == 0
    assert on_disk(weights) == sorted(f"seed-vc/{name}" for name in seed_vc)


@pytest.mark.parametrize(("answer", "code", "files"), [("y\n", 0, 2), ("n\n", 1, 0)])
def test_gpl_is_asked_for_at_a_terminal(
    hub: HubServer,
    seed_vc: dict[str, bytes],
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    code: int,
    files: int,
) -> None:
    monkeypatch.setattr(cli, "sys", SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True)))
    arguments = "--dir", str(weights), "--mirror", hub.url, "--only", "seed-vc"
    result = heartvoice("weights", "pull", *arguments, input=answer)
    assert result.exit_code == code
    assert len(on_disk(weights)) == files


def test_licence_that_became_gpl_is_asked_for(hub: HubServer, weights: Path) -> None:
    hub.publish(LM, LM_FILES, "agpl-3.0")
    result = pull(hub, weights, "heartmula")
    assert result.exit_code == 2
    assert "model card: agpl-3.0" in result.stderr


# ----------------------------------------------------------------------------------------------------------- plain URLs


def test_demucs_comes_from_its_own_server(hub: HubServer, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    demucs = plain_demucs(hub, {"f7e0c4bc": b"first" * 400, "d12395a8": b"second" * 400})
    monkeypatch.setattr(catalogue, "WEIGHTS", (demucs,))
    monkeypatch.setenv("HF_TOKEN", "hf_" + "a" * 34)
    hub.cuts[demucs.files[0]] = list(BROKEN)
    assert pull(hub, weights, "demucs").exit_code == 3
    assert pull(hub, weights, "demucs").exit_code == 0
    assert on_disk(weights) == sorted(f"demucs/{name}" for name in demucs.files)
    assert hub.downloads(demucs.files[0])[-1].start is not None
    assert not any(request.authorized for request in hub.requests)
    entry = lock_of(weights)["demucs"]
    assert entry["revision"] is None
    assert entry["files"][f"demucs/{demucs.files[0]}"]["sha256"] == sha256(b"first" * 400)


def test_demucs_file_is_held_to_the_digits_in_its_name(
    hub: HubServer, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demucs = plain_demucs(hub, {"f7e0c4bc": b"first" * 100})
    monkeypatch.setattr(catalogue, "WEIGHTS", (demucs,))
    hub.sent_instead[demucs.files[0]] = b"other" * 100
    result = pull(hub, weights, "demucs")
    assert result.exit_code == 1
    assert f"expected sha256 {demucs.files[0][9:17]}…" in result.stderr
    assert on_disk(weights) == []
