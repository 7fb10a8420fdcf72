"""Graphs onto disk: inline or beside the graph, hashed, refused if a weight is damaged."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from heartvoice.contracts.types import Axis, TensorSpec
from heartvoice.errors import ExportError
from heartvoice.export.graph_builder import Graph, GraphBuilder, pinned, value_info
from heartvoice.export.layout import IR_VERSION, OPSET, Precision
from heartvoice.export.writer import DATA_FILE, GRAPH_FILE, write_graph
from heartvoice.runtime.engines import OnnxEngine

X = TensorSpec("x", "FP32", (Axis("row"), 64))
Y = TensorSpec("y", "FP32", (Axis("row"), 32))
VALUES = np.linspace(-1, 1, 64 * 32, dtype=np.float32).reshape(64, 32)


def small_graph(values: Any = VALUES, precision: Precision = "fp32") -> Graph:
    """Y = silu(x @ W + b), with W of 8 KB and b of 128 bytes."""
    b = GraphBuilder("small", precision)
    x, y = b.input(X), b.output(Y)
    weight = b.weight("W", (64, 32), lambda: values, half=True)
    bias = b.weight("b", (32,), lambda: np.arange(32))
    z = b.linear(x, weight, bias)
    b.op("Mul", z, b.op("Sigmoid", z), out=y)
    return b.graph


def test_external_weights_give_the_same_graph(tmp_path: Path) -> None:
    x = np.linspace(-2, 2, 3 * 64, dtype=np.float32).reshape(3, 64)
    results = []
    for name, limit in (("inline", 2**20), ("external", 0)):
        folder = tmp_path / name
        folder.mkdir()
        files = write_graph(small_graph(), folder, external_bytes=limit)
        assert set(files) == {path.name for path in folder.iterdir()}
        for file, entry in files.items():
            content = (folder / file).read_bytes()
            assert entry == {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        results.append(OnnxEngine(folder / GRAPH_FILE, threads=1).run({"x": x})["y"])
    assert (tmp_path / "external" / DATA_FILE).is_file()
    assert not (tmp_path / "inline" / DATA_FILE).exists()
    assert np.array_equal(results[0], results[1])


def test_external_tensors_are_aligned_and_small_ones_stay(tmp_path: Path) -> None:
    b = GraphBuilder("two")
    x, y = b.input(X), b.output(Y)
    first, second = (b.weight(name, (64, 32), lambda: VALUES) for name in ("W1", "W2"))
    b.op("Add", b.matmul(x, first), b.op("Add", b.matmul(x, second), b.constant(np.ones(32), np.float32)), out=y)
    write_graph(b.graph, tmp_path, external_bytes=0)
    tensors = onnx.load(str(tmp_path / GRAPH_FILE), load_external_data=False).graph.initializer
    places = {tensor.name: {entry.key: entry.value for entry in tensor.external_data} for tensor in tensors}
    assert places["W1"] == {"location": DATA_FILE, "offset": "0", "length": "8192"}
    assert places["W2"] == {"location": DATA_FILE, "offset": "8192", "length": "8192"}
    assert not places["constant_0"]


def test_file_states_versions_and_nothing_of_this_machine(tmp_path: Path) -> None:
    write_graph(small_graph(), tmp_path)
    model = onnx.load(str(tmp_path / GRAPH_FILE))
    assert (model.ir_version, model.opset_import[0].version, len(model.opset_import)) == (IR_VERSION, OPSET, 1)
    assert (model.producer_name, model.producer_version, model.doc_string) == ("heartvoice", "", "")
    assert not model.metadata_props
    assert not any(node.doc_string for node in model.graph.node)


def test_progress_counts_every_byte(tmp_path: Path) -> None:
    counted: list[int] = []
    graph = small_graph()
    write_graph(graph, tmp_path, progress=counted.append)
    assert sum(counted) == graph.nbytes == 64 * 32 * 4 + 32 * 4


@pytest.mark.parametrize("limit", [2**20, 0], ids=["inline", "external"])
@pytest.mark.parametrize(
    ("values", "precision", "message"),
    [
        (np.where(VALUES == 1, np.nan, VALUES), "fp32", "W: is not finite"),
        (VALUES * np.float32(1e5), "fp16", "W: overflows half precision"),
        (VALUES[:, :31], "fp32", r"W: expected \[64, 32\], got \[64, 31\]"),
    ],
)
def test_damaged_weight_is_refused(values: Any, precision: Precision, message: str, limit: int, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=message):
        write_graph(small_graph(values, precision), tmp_path, external_bytes=limit)


def test_inconsistent_graph_is_refused(tmp_path: Path) -> None:
    graph = small_graph()
    graph.nodes[0].input[1] = "no such tensor"
    with pytest.raises(ExportError, match="small: not valid ONNX"):
        write_graph(graph, tmp_path)


def test_half_precision_is_inside_alone(tmp_path: Path) -> None:
    write_graph(small_graph(precision="fp16"), tmp_path)
    graph = onnx.load(str(tmp_path / GRAPH_FILE)).graph
    assert {tensor.name: tensor.data_type for tensor in graph.initializer} == {"W": 10, "b": 1}
    assert {info.type.tensor_type.elem_type for info in (*graph.input, *graph.output)} == {1}


def test_equal_constants_and_weights_are_declared_once() -> None:
    b = GraphBuilder("names")
    assert b.constant([1, 2]) == b.constant((1, 2)) != b.constant([1, 2], np.int32)
    assert b.weight("W", (1,), lambda: VALUES) == b.weight("W", (1,), lambda: VALUES)
    assert [weight.name for weight in b.graph.weights] == ["constant_0", "constant_1", "W"]


def test_boundary_has_the_contracts_axes() -> None:
    spec = TensorSpec("x", "INT32", (8, Axis("frame"), Axis("latent")))
    dims = value_info(pinned(spec, {"latent": 16}), "batch").type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in dims] == ["batch", 8, "frame", 16]
