"""`export check` finds each kind of drift, and nothing where there is none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from heartvoice.export import configs, layout
from heartvoice.export.check import committed_drift, repository_drift
from heartvoice.runtime.repository import GRAPH, INDEX, MANIFEST


def test_committed_configs_agree_with_the_contracts() -> None:
    assert committed_drift() == []


def test_export_agrees_with_the_contracts(exported: Path) -> None:
    assert repository_drift(exported) == []


@pytest.fixture
def committed(tmp_path: Path) -> Path:
    return Path(shutil.copytree(configs.COMMITTED, tmp_path / "model_repository"))


def edit_new(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("x")


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


COMMITTED_DRIFTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "edited": (lambda root: edit(root / "song/config.pbtxt", "FP32", "FP16"), "song/config.pbtxt: differs"),
    "missing": (lambda root: (root / "heartcodec_flow/configs/cpu.pbtxt").unlink(), "cpu.pbtxt: missing"),
    "unknown": (
        lambda root: (root / "song/x.pbtxt").touch(),
        "x.pbtxt: no contract",
    ),
    "no adapter": (lambda root: (root / "render/1/model.py").unlink(), "render/1/model.py: missing"),
    "other adapter": (lambda root: edit(root / "svc/1/model.py", "SvcModel", "SongModel"), "svc/1/model.py: differs"),
    "unknown adapter": (lambda root: edit_new(root / "htdemucs/1/model.py"), "htdemucs/1/model.py: no contract"),
}


@pytest.mark.parametrize(("change", "message"), COMMITTED_DRIFTS.values(), ids=COMMITTED_DRIFTS)
def test_drift_of_the_committed_files_is_found(change: Callable[[Path], object], message: str, committed: Path) -> None:
    change(committed)
    found = committed_drift(committed)
    assert len(found) == 1
    assert message in found[0]
    if "no contract" not in message:
        assert len(configs.write_committed(committed)) == 1
        assert committed_drift(committed) == []


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_graph(root: Path, change: Callable[[onnx.GraphProto], object]) -> None:
    """Change a graph and its manifest's hash, so that the boundary alone is wrong."""
    path = root / "heartcodec_flow" / GRAPH
    model = onnx.load(str(path))
    change(model.graph)
    path.write_bytes(model.SerializeToString())
    entry = {"sha256": layout.sha256(path), "bytes": path.stat().st_size}
    edit_json(root / "heartcodec_flow" / MANIFEST, files={"model.onnx": entry})


def rename_input(graph: onnx.GraphProto) -> None:
    graph.input[0].name = "noisy"


def retype_input(graph: onnx.GraphProto) -> None:
    graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16


def resize_output(graph: onnx.GraphProto) -> None:
    graph.output[0].type.tensor_type.shape.dim[2].dim_value = 17


def flip_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


FLOW = "heartcodec_flow"
DRIFTS: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "config": (lambda root: edit(root / FLOW / "config.pbtxt", "16", "17"), (f"{FLOW}/config.pbtxt: differs",)),
    "step config": (
        lambda root: (root / "heartmula_step/config.pbtxt").unlink(),
        ("heartmula_step/config.pbtxt: missing",),
    ),
    "model.py": (
        lambda root: (root / "song/1/model.py").write_text("x"),
        ("song/1/model.py: differs from the contracts",),
    ),
    "tokenizer": (
        lambda root: (root / "heartmula/1/tokenizer.json").write_text("{"),
        ("heartmula/1/tokenizer.json: missing or damaged",),
    ),
    "flipped": (lambda root: flip_byte(root / FLOW / GRAPH), (f"{FLOW}/1/model.onnx: its sha256",)),
    "graph gone": (lambda root: (root / FLOW / GRAPH).unlink(), (f"{FLOW}/1/model.onnx: missing",)),
    "manifest gone": (lambda root: (root / FLOW / MANIFEST).unlink(), (f"{FLOW}/1/model.json: missing",)),
    "manifest damaged": (lambda root: (root / FLOW / MANIFEST).write_text("[]"), (f"{FLOW}/1/model.json: missing",)),
    "preset": (lambda root: edit_json(root / FLOW / MANIFEST, preset="mid"), ("another preset",)),
    "weights": (
        lambda root: edit_json(root / FLOW / MANIFEST, sources={"random": "random seed=9"}),
        ("another sources",),
    ),
    "licence": (lambda root: edit_json(root / "vocoder" / MANIFEST, licence="MIT"), ("another licence",)),
    "converter's graph": (lambda root: (root / "svc_flow" / GRAPH).unlink(), ("svc_flow/1/model.onnx: missing",)),
    "versions": (lambda root: edit_json(root / FLOW / MANIFEST, versions={}), ("another versions",)),
    "code": (lambda root: edit_json(root / FLOW / MANIFEST, code="0"), ("made from other code",)),
    "no files": (lambda root: edit_json(root / FLOW / MANIFEST, files={}), ("lists no model.onnx",)),
    "name": (
        lambda root: edit_graph(root, rename_input),
        ("input noisy: the contract says nothing, the graph FLOAT [batch, latent_frame, 16]", "input x: the contract"),
    ),
    "dtype": (lambda root: edit_graph(root, retype_input), ("input x: the contract says FLOAT [",)),
    "dims": (
        lambda root: edit_graph(root, resize_output),
        ("velocity: the contract says FLOAT [batch, latent_frame, 16], the graph FLOAT [batch, latent_frame, 17]",),
    ),
    "unknown model": (lambda root: (root / "heartthrob").mkdir(), ("heartthrob: no contract",)),
    "no index": (lambda root: (root / INDEX).unlink(), ("not an exported repository",)),
    "older export": (lambda root: edit_json(root / INDEX, format=0), ("exported by an older version: export again",)),
    "damaged index": (lambda root: edit_json(root / INDEX, sizes={}), ("repository.json: damaged",)),
}


@pytest.mark.parametrize(("change", "messages"), DRIFTS.values(), ids=DRIFTS)
def test_repository_drift_is_found(
    change: Callable[[Path], object], messages: tuple[str, ...], repository: Path
) -> None:
    change(repository)
    found = repository_drift(repository)
    assert len(found) == len(messages), found
    for line, message in zip(found, messages, strict=True):
        assert message in line
