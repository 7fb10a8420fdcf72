"""A preset into a repository: complete, repeatable, all or nothing."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from heartvoice.contracts import triton_config
from heartvoice.contracts.models import models_with
from heartvoice.contracts.network_names import Network
from heartvoice.errors import CheckpointError, ExportError
from heartvoice.export import atomic_repository as staging
from heartvoice.export import layout
from heartvoice.export import repository as module
from heartvoice.export.repository import Exported, export_repository
from heartvoice.export.weights import Weights, random_weights
from heartvoice.models.load import TensorSource
from heartvoice.models.prompt import load_tokenizer
from heartvoice.runtime.engines import OnnxEngine
from heartvoice.runtime.repository import GRAPH, INDEX, MANIFEST, Repository
from tests.support.graphs import TINY, flow_inputs

GRAPHS = tuple(layout.graph_models(TINY))
PUBLISHED = {"speaker_network": "Resemblyzer 0.1.4 (PyPI)", "f0_network": "swift-f0 0.3.0 (PyPI)"}
"""Graphs whose weights are real ones in every preset that names their engine, and where those come from."""
Snapshot = dict[str, bytes]


def snapshot(root: Path) -> Snapshot:
    """Every file below a folder."""
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def siblings(root: Path) -> list[str]:
    return sorted(path.name for path in root.parent.iterdir())


# ------------------------------------------------------------------------------------------------------ completeness


def test_repository_is_complete(exported: Path) -> None:
    models = {path.name for path in exported.iterdir() if path.is_dir()}
    expected = models_with("htdemucs")
    assert models == {*expected, "heartmula_step"}
    for model in expected.values():
        assert (exported / triton_config.config_path(model)).read_text() == triton_config.to_config_text(model)
        main = "model.py" if model.backend == "python" else "model.onnx"
        assert (exported / model.name / "1" / main).is_file()


def test_serving_reads_preset_and_graphs(exported: Path) -> None:
    repository = Repository(exported)
    assert repository.preset == TINY
    assert repository.random_weights
    for name in GRAPHS:
        assert repository.graph(name).is_file()
    assert OnnxEngine(repository.graph("svc_flow"), threads=1).output_names == ["velocity"]


def test_tokenizer_has_one_id_for_each_tag_and_no_bos(exported: Path) -> None:
    tokenizer = load_tokenizer(exported / "heartmula" / "1" / "tokenizer.json")
    ids = tokenizer.encode("<tag>pop, ü 歌\n</tag>").ids
    assert len(ids) == 2 + len("pop, ü 歌\n".encode())
    assert max(ids) < TINY.lm.text_vocab_size
    assert min(ids) > 0
    assert not {TINY.ids.text_bos_id, TINY.ids.text_eos_id} & set(ids)
    assert tokenizer.encode("").ids == []


def test_manifest_says_what_the_graph_is(exported: Path) -> None:
    for name, model in layout.graph_models(TINY).items():
        manifest = json.loads((exported / name / MANIFEST).read_text())
        assert manifest["preset"] == "tiny"
        assert manifest["weights"] == PUBLISHED.get(name, "random seed=0")
        assert manifest["axes"] == model.axes
        assert manifest["sizes"] == layout.sizes(TINY, model.network)
        assert manifest["parity"]["compared"] == "whole"
        assert max(manifest["parity"]["relative_error"].values()) < 1e-4
        text = (exported / name / MANIFEST).read_text() + (exported / INDEX).read_text()
        assert str(exported.parent) not in text
        assert set(manifest["files"]) == {path.name for path in (exported / name / "1").iterdir()} - {"model.json"}


# ------------------------------------------------------------------------------------------------------ repeatability


def test_two_exports_are_byte_identical(exported: Path, tmp_path: Path) -> None:
    """Two graphs and their files; the nightly tests compare a whole repository."""
    names = ("heartcodec_condition", "svc_style")
    other = tmp_path / "elsewhere" / "deeper" / "repository"
    export_repository(random_weights(TINY, 0), other, only=names)
    for name in names:
        assert snapshot(other / name) == snapshot(exported / name)


def test_second_export_does_nothing(repository: Path, tiny_weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    before = snapshot(repository)
    stamps = {path: path.stat().st_mtime_ns for path in repository.rglob("*")}
    monkeypatch.setattr(module._Job, "_made", None)  # would fail if it were called
    results = export_repository(tiny_weights, repository)
    assert [(result.model, result.written) for result in results] == [(name, False) for name in GRAPHS]
    assert snapshot(repository) == before
    assert {path: path.stat().st_mtime_ns for path in repository.rglob("*")} == stamps


@pytest.mark.parametrize("damage", ["graph", "manifest", "code"])
def test_what_is_out_of_date_is_made_anew(damage: str, repository: Path, tiny_weights: Weights, exported: Path) -> None:
    path = repository / "heartcodec_condition" / (GRAPH if damage == "graph" else MANIFEST)
    if damage == "graph":
        content = bytearray(path.read_bytes())
        content[-100] ^= 1
        path.write_bytes(content)
    elif damage == "manifest":
        path.write_text("{")
    else:
        path.write_text(path.read_text().replace('"code": "', '"code": "0'))
    written = [result.model for result in export_repository(tiny_weights, repository) if result.written]
    assert written == ["heartcodec_condition"]
    assert snapshot(repository) == snapshot(exported)


def test_changed_config_is_restored_without_making_the_graph(repository: Path, tiny_weights: Weights) -> None:
    config = repository / "heartcodec_flow" / "config.pbtxt"
    wanted = config.read_text()
    config.write_text("nonsense")
    inode = (repository / "heartcodec_flow" / GRAPH).stat().st_ino
    assert not any(result.written for result in export_repository(tiny_weights, repository))
    assert config.read_text() == wanted
    assert (repository / "heartcodec_flow" / GRAPH).stat().st_ino == inode


# ---------------------------------------------------------------------------------------------------- all or nothing


@dataclass
class Damaged(TensorSource):
    """A checkpoint with one value changed while graphs are built, not while PyTorch loads, or with a NaN."""

    source: TensorSource
    name: str
    value: float

    def __post_init__(self) -> None:
        self.names = self.source.names

    def where(self, name: str) -> str:
        return self.source.where(name)

    def _stored_shape(self, name: str) -> tuple[int, ...]:
        return self.source.shape(name)

    def _pieces(self, name: str) -> Iterator[Any]:
        for piece in self.source.pieces(name):
            if name == self.name:
                piece[7] = self.value
            yield piece


def damaged(weights: Weights, network: Network, name: str, value: float) -> Weights:
    source = weights.source(network)
    opened = dict(weights.opened)
    opened[network] = lambda: Damaged(source, name, value)
    return replace(weights, origin="random seed=damaged", opened=opened)


def test_parity_miss_leaves_the_old_version(
    repository: Path, tiny_weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot(repository)
    monkeypatch.setattr("heartvoice.export.llama_graph.NEVER", 0.0)  # a mask that masks nothing
    monkeypatch.setattr(layout, "code_hash", lambda: "other")
    with pytest.raises(
        ExportError, match=r"heartmula_step: differs from PyTorch by more than 0\.0001 \(fp32\): prompt"
    ):
        export_repository(tiny_weights, repository, only=["heartcodec_condition", "svc_style", "heartmula_step"])
    assert snapshot(repository) == before
    assert siblings(repository) == ["tiny"]


def test_nan_is_refused_by_name(repository: Path, tiny_weights: Weights) -> None:
    before = snapshot(repository)
    bad = damaged(tiny_weights, "codec", "flow_matching.cond_feature_emb.weight", np.nan)
    with pytest.raises(CheckpointError, match=r"cond_feature_emb\.weight: holds a value that is not finite"):
        export_repository(bad, repository)
    assert snapshot(repository) == before


def test_half_precision_overflow_is_refused(tmp_path: Path, tiny_weights: Weights) -> None:
    bad = damaged(tiny_weights, "codec", "flow_matching.cond_feature_emb.weight", 1e5)
    with pytest.raises(ExportError, match=r"cond_feature_emb\.weight: overflows half precision"):
        export_repository(bad, tmp_path / "new" / "r", precision="fp16", only=["heartcodec_condition"])
    assert list(tmp_path.iterdir()) == []


def test_interrupt_leaves_nothing(tmp_path: Path, tiny_weights: Weights) -> None:
    class Interrupting(module.Silent):
        def comparing(self, model: str) -> None:
            if model == "heartcodec_flow":
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_repository(tiny_weights, tmp_path / "a" / "b", reporter=Interrupting())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("moves", range(1, 8))
@pytest.mark.parametrize("after", [False, True])
def test_interrupted_commit_is_undone(
    moves: int, after: bool, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "copy" / "tiny"
    repository.mkdir(parents=True)
    shutil.copy2(exported / INDEX, repository)
    for model in ("render", "heartmula"):  # those that are replaced
        shutil.copytree(exported / model, repository / model)
    before = snapshot(repository)
    _interrupt(moves, after, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        _replace_three(repository)
    monkeypatch.undo()
    assert snapshot(repository) == before
    assert siblings(repository) == ["tiny"]


def _replace_three(repository: Path) -> None:
    """Commit one model that is not there yet and two that are: seven moves with the index."""
    with staging.staged(repository) as stage:
        for model in ("song", "render", "heartmula"):
            (stage.folder(model) / "new.txt").write_text("new")
        stage.commit("{}")


def _interrupt(moves: int, after: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise KeyboardInterrupt once, before or after the n-th `Path.replace`."""
    original, left = Path.replace, [moves]

    def counted(self: Path, target: Path) -> Path:
        left[0] -= 1
        if left[0] == 0 and not after:
            raise KeyboardInterrupt
        moved = original(self, target)
        if left[0] == 0:
            raise KeyboardInterrupt
        return moved

    monkeypatch.setattr(Path, "replace", counted)


def test_killed_commit_is_undone_by_the_next_export(repository: Path, tiny_weights: Weights) -> None:
    before = snapshot(repository)
    old = repository.parent / ".tiny.export" / "old"
    old.mkdir(parents=True)
    (repository / INDEX).rename(old / INDEX)
    (repository / "heartmula_step").rename(old / "heartmula_step")
    results = export_repository(tiny_weights, repository)
    assert not any(result.written for result in results)
    assert snapshot(repository) == before
    assert siblings(repository) == ["tiny"]


# ------------------------------------------------------------------------------------------------------ what is refused


def test_one_export_at_a_time(repository: Path, tiny_weights: Weights) -> None:
    handle = os.open(repository, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(ExportError, match="another export is running there"):
            export_repository(tiny_weights, repository)
    finally:
        os.close(handle)


def test_foreign_folder_is_refused(tmp_path: Path, tiny_weights: Weights) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ExportError, match=r"thesis\.tex and is no model repository"):
        export_repository(tiny_weights, tmp_path)
    assert snapshot(tmp_path) == {"thesis.tex": b"years of work"}


def test_full_disk_is_noticed_before_writing(
    tmp_path: Path, tiny_weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    with pytest.raises(ExportError, match=r"heartcodec_condition: needs \d+ MB in .*, \d+ MB are free"):
        export_repository(tiny_weights, tmp_path / "r")


def test_sizes_outside_the_contract_are_refused(tmp_path: Path) -> None:
    codec = replace(TINY.codec, upsample_factors=(5, 4, 4, 4, 2))
    with pytest.raises(ExportError, match="samples of a frame: expected 3840, got 2560"):
        export_repository(random_weights(replace(TINY, codec=codec), 0), tmp_path / "r")
    whisper = replace(TINY.svc.whisper, max_source_positions=750)
    with pytest.raises(ExportError, match="max_source_positions: expected 1500, got 750"):
        export_repository(random_weights(replace(TINY, svc=replace(TINY.svc, whisper=whisper)), 0), tmp_path / "r")


def test_a_miss_of_the_converter_is_refused(
    tmp_path: Path, tiny_weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heartvoice.export.svc_flow_graph.TIME_FACTOR", 900.0)
    with pytest.raises(ExportError, match=r"svc_flow: differs from PyTorch by more than 0\.0001 \(fp32\): velocity"):
        export_repository(tiny_weights, tmp_path / "r", only=["svc_style", "svc_flow"])
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------------------------- options


def test_large_networks_are_compared_in_pieces(
    tmp_path: Path, tiny_weights: Weights, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heartvoice.export.parity.WHOLE_BYTES", 0)
    root = tmp_path / "pieces"
    names = ("heartcodec_condition", "heartcodec_flow", "svc_flow", "vocoder", "heartmula_step")
    export_repository(tiny_weights, root, only=names)
    for name in names:
        layered = name in {"heartcodec_flow", "heartmula_step"}
        compared = json.loads((root / name / MANIFEST).read_text())["parity"]["compared"]
        assert compared == ("one layer of each stack, at full width" if layered else "whole")
        assert (root / name / GRAPH).read_bytes() == (exported / name / GRAPH).read_bytes()
        assert len(list((root / name / "1").iterdir())) == 2


class Uncompared:
    """Stands in for PyTorch where a test is not about it."""

    def compare(self, *args: object) -> dict[str, object]:
        return {}


def test_only_leaves_the_others(repository: Path, tiny_weights: Weights) -> None:
    before = snapshot(repository)
    results = export_repository(tiny_weights, repository, only=["heartcodec_condition"], precision="fp16")
    assert [result.model for result in results if result.written] == ["heartcodec_condition"]
    after = snapshot(repository)
    changed = {name for name in before if after[name] != before[name]}
    assert changed == {f"heartcodec_condition/{GRAPH}", f"heartcodec_condition/{MANIFEST}", INDEX}
    assert json.loads(after[INDEX])["precision"] == "mixed"


def test_only_refuses_another_preset_and_unknown_graphs(repository: Path) -> None:
    with pytest.raises(ExportError, match="export all of 'tiny'"):
        export_repository(random_weights(TINY, 1), repository, only=["heartcodec_condition"])
    with pytest.raises(ExportError, match="only: no graph song"):
        export_repository(random_weights(TINY, 0), repository, only=["song"])


def test_other_weights_replace_everything(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module._Job, "_reference_of", lambda self, network: Uncompared())
    before = snapshot(repository)
    results: list[Exported] = export_repository(random_weights(TINY, 1), repository)
    assert {result.model: result.written for result in results} == {name: name not in PUBLISHED for name in GRAPHS}
    after = snapshot(repository)
    for name in GRAPHS:
        assert (after[f"{name}/{GRAPH}"] == before[f"{name}/{GRAPH}"]) is (name in PUBLISHED)
    assert Repository(repository).index["weights"] == "random seed=1"


def test_weights_beside_the_graph_change_nothing(exported: Path, tmp_path: Path, tiny_weights: Weights) -> None:
    root, name = tmp_path / "external", "heartcodec_flow"
    export_repository(tiny_weights, root, external_bytes=1000, only=[name])
    assert (root / name / "1" / "model.onnx.data").is_file()
    assert set(json.loads((root / name / MANIFEST).read_text())["files"]) == {"model.onnx", "model.onnx.data"}
    inputs = flow_inputs(TINY.codec, 2, 20)
    outputs = [OnnxEngine(place / name / GRAPH, threads=1).run(inputs)["velocity"] for place in (exported, root)]
    assert np.array_equal(outputs[0], outputs[1])
    assert not any(result.written for result in export_repository(tiny_weights, root, only=[name]))


def test_half_precision_repository(tmp_path: Path, tiny_weights: Weights, exported: Path) -> None:
    root, name = tmp_path / "half", "heartcodec_flow"
    export_repository(tiny_weights, root, precision="fp16", only=[name])
    manifest = json.loads((root / name / MANIFEST).read_text())
    assert manifest["precision"] == "fp16"
    assert 1e-5 < max(manifest["parity"]["relative_error"].values()) < manifest["parity"]["tolerance"] == 2e-2
    sizes = [(place / name / GRAPH).stat().st_size for place in (root, exported)]
    assert sizes[0] < 0.7 * sizes[1]  # tiny has much graph for few weights
