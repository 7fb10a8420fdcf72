"""`heartvoice export --lm-dialect ort --quantize`: the graph in a repository, kept, reported, refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from heartvoice.cli.main import app
from heartvoice.errors import ExportError
from heartvoice.export.check import repository_drift
from heartvoice.export.repository import Exported, export_repository
from heartvoice.export.weights import Weights
from heartvoice.runtime.repository import GRAPH, MANIFEST, Repository
from heartvoice.stages.lm.engine_ort import OrtEngine

ORT = "heartmula_step_ort"


def run(*arguments: str | Path) -> Result:
    command = ["export", "--random-weights", "0", *map(str, arguments)]
    return CliRunner().invoke(app, command, env={"COLUMNS": "200", "NO_COLOR": "1"})


def made(results: list[Exported]) -> list[str]:
    return [result.model for result in results if result.written]


def manifest(repository: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((repository / ORT / MANIFEST).read_text())
    return content


def test_graph_is_added_kept_and_changed(repository: Path, tiny_weights: Weights) -> None:
    assert not (repository / ORT).exists()
    assert made(export_repository(tiny_weights, repository, quantize="none")) == [ORT]
    assert repository_drift(repository) == []
    assert manifest(repository)["quantize"] == "none"
    assert manifest(repository)["parity"]["tolerance"] == 1e-4  # type: ignore[index]
    assert "quality" not in manifest(repository)

    assert made(export_repository(tiny_weights, repository, quantize="depth-int8")) == [ORT]
    assert made(export_repository(tiny_weights, repository)) == []  # stays as it is
    assert repository_drift(repository) == []
    assert manifest(repository)["quantize"] == "depth-int8"
    assert len(manifest(repository)["quality"]["codebooks"]) == 8  # type: ignore[index]
    assert {path.name for path in (repository / ORT / "1").iterdir()} == {"model.onnx", "model.json"}

    (repository / ORT / GRAPH).unlink()
    assert any(f"{ORT}/1/model.onnx: missing" in line for line in repository_drift(repository))
    assert made(export_repository(tiny_weights, repository)) == [ORT]
    opened = Repository(repository)
    OrtEngine(opened.graph(ORT), opened.preset, n_slots=1, threads=1)


def test_two_exports_are_byte_identical(repository: Path, tiny_weights: Weights, tmp_path: Path) -> None:
    other = tmp_path / "other"
    for root in (repository, other):
        export_repository(tiny_weights, root, quantize="int8", only=[ORT])
    for name in (GRAPH, MANIFEST):
        assert (repository / ORT / name).read_bytes() == (other / ORT / name).read_bytes()


def test_refused_weights_leave_everything_as_it_was(repository: Path, tiny_weights: Weights) -> None:
    before = sorted(path for path in repository.rglob("*"))
    with pytest.raises(ExportError, match="int4 weights change what is drawn by more than"):
        export_repository(tiny_weights, repository, quantize="int4")
    assert sorted(path for path in repository.rglob("*")) == before


def test_half_precision_is_another_thing(repository: Path, tiny_weights: Weights) -> None:
    with pytest.raises(ExportError, match=f"{ORT}: expected precision fp32, got fp16; for fewer bits use quantize"):
        export_repository(tiny_weights, repository, precision="fp16", quantize="none", only=[ORT])


def test_command_prints_what_quantisation_changed(repository: Path) -> None:
    result = run("--repository", repository, "--quantize", "int8", "--only", ORT)
    assert result.exit_code == 0, result.output
    assert "same best code" in result.output
    assert " dB" in result.output
    assert manifest(repository)["quantize"] == "int8"
    again = run("--repository", repository, "--lm-dialect", "ort", "--only", ORT)
    assert again.exit_code == 0, again.output
    assert manifest(repository)["quantize"] == "none"


def test_command_refuses_an_unknown_choice(tmp_path: Path) -> None:
    result = run("--repository", tmp_path / "r", "--quantize", "int3")
    assert result.exit_code != 0
    assert "quantize: expected none, or int8 or int4" in " ".join(result.output.split())
    assert not (tmp_path / "r").exists()
