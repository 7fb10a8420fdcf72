"""The exported graphs against TensorRT's operator table."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from heartvoice.cli.main import app
from heartvoice.config.presets import F0S, PRESETS, SPEAKERS, Preset, with_separator
from heartvoice.export.layout import OPSET, graph_models
from heartvoice.export.lint import Finding, Lint, lint, operator_table
from heartvoice.export.mixed_precision import HALVES, TYPED_OPSET, HalfPrecision, type_graph
from heartvoice.export.parity_targets import target_of
from heartvoice.export.weights import random_weights
from heartvoice.export.writer import GRAPH_FILE, write_graph
from tests.support.graphs import TINY

DOUBLE = "DOUBLE is cast down to FP32"
VALUES = "a shape depends on values of an input, not on shapes alone"
EXPECTED: dict[str, set[Finding]] = {
    "f0_network": {
        Finding("limited", "Scan", "a loop: its body becomes one of TensorRT's"),
        *(Finding("limited", kind, DOUBLE, count) for kind, count in
          {"Cast": 2, "Exp": 2, "Gather": 2, "Mul": 3, "ReduceSum": 2, "Softmax": 2}.items()),
    },
    "heartmula_step": {Finding("limited", "TopK", VALUES, 8)},
}  # fmt: skip
"""All that is not plainly supported. A new entry here is a decision, docs/how-to/gpu.md says why each is there."""


def model_of(nodes: list, *, initializers: dict | None = None, opset: int = OPSET, folder: Path, rank: int = 2) -> Path:
    values = [numpy_helper.from_array(np.asarray(value), name) for name, value in (initializers or {}).items()]
    shape: list = [None] * rank
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], values,
    )  # fmt: skip
    path = folder / "g.onnx"
    domains = {node.domain for node in nodes} - {""}
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


def node(kind: str, inputs: str, outputs: str, **attributes: object) -> onnx.NodeProto:
    """Tensors have names of one letter."""
    return helper.make_node(kind, list(inputs), list(outputs), **attributes)


def cast(name: str, out: str, to: int) -> onnx.NodeProto:
    return node("Cast", name, out, to=to)


def found(result: Lint) -> set[tuple[str, str]]:
    return {(item.level, item.operator) for item in result.findings}


ONE = np.ones(1, np.float32)
FLAT = (cast("x", "a", TensorProto.INT64), node("Reshape", "az", "f"))
"""An input's values as a shape."""


@pytest.mark.parametrize("name", list(graph_models(TINY)))
def test_graphs_have_no_findings_but_the_expected_ones(exported: Path, name: str) -> None:
    result = lint(exported / name / "1" / GRAPH_FILE, name)
    assert set(result.findings) == EXPECTED.get(name, set())
    assert result.clean


@pytest.mark.parametrize("precision", HALVES)
@pytest.mark.parametrize("name", [name for name, model in graph_models(TINY).items() if model.spec.plan])
def test_typed_graphs_have_no_findings_but_the_expected_ones(
    exported: Path, tmp_path: Path, name: str, precision: HalfPrecision
) -> None:
    typed = type_graph(exported / name / "1" / GRAPH_FILE, precision)
    write_graph(typed.graph, tmp_path, opset=TYPED_OPSET[precision])
    result = lint(tmp_path / GRAPH_FILE, name)
    assert set(result.findings) == EXPECTED.get(name, set())
    assert {"bf16": "BF16", "fp16": "FP16"}[precision] in result.types or name == "f0_network"


@pytest.mark.parametrize(
    ("preset", "name"),
    [
        pytest.param(replace(TINY, f0=F0S["rmvpe"]), "f0_network", id="rmvpe"),
        pytest.param(replace(TINY, speaker=SPEAKERS["campplus"]), "speaker_network", id="campplus"),
    ],
)
def test_other_engines_of_the_official_preset_are_supported(tmp_path: Path, preset: Preset, name: str) -> None:
    model = graph_models(preset)[name]
    source = random_weights(preset, 0).source(model.network)
    write_graph(target_of(model).build(preset, source, "fp32"), tmp_path, external_bytes=2**20)
    assert not lint(tmp_path / GRAPH_FILE, name).findings


def test_ort_dialect_is_refused(tmp_path: Path) -> None:
    foreign = node("MatMulNBits", "xw", "y", domain="com.microsoft")
    result = lint(model_of([foreign], initializers={"w": np.zeros(1, np.float32)}, folder=tmp_path), "step")
    assert found(result) == {("unsupported", "MatMulNBits")}
    assert not result.clean


def test_unknown_operations_are_unknown_and_never_supported(tmp_path: Path) -> None:
    table = {**operator_table(), "operators": {}}
    result = lint(model_of([node("Relu", "x", "y")], folder=tmp_path), "g", table)
    assert found(result) == {("unknown", "Relu")}
    assert not result.clean


@pytest.mark.parametrize(
    ("nodes", "initializers", "finding"),
    [
        ([node("Det", "x", "y")], {}, ("unsupported", "Det")),
        ([node("TopK", "xk", "yi")], {"k": np.array([3840])}, ("unsupported", "TopK")),
        ([node("TopK", "xk", "yi", sorted=0)], {"k": np.array([4])}, ("unsupported", "TopK")),
        ([node("NonZero", "x", "n"), cast("n", "y", 1)], {}, ("limited", "NonZero")),
        ([node("LayerNormalization", "xs", "ym")], {"s": ONE}, ("unsupported", "LayerNormalization")),
        ([cast("x", "d", TensorProto.DOUBLE), node("Relu", "d", "e"), cast("e", "y", 1)], {}, ("limited", "Relu")),
        ([cast("x", "d", TensorProto.INT64), node("Clip", "d", "e"), cast("e", "y", 1)], {}, ("unsupported", "Clip")),
        ([*FLAT, node("ReduceSum", "xf", "y")], {"z": np.array([-1])}, ("unsupported", "ReduceSum")),
        ([*FLAT, node("Expand", "xf", "y")], {"z": np.array([-1])}, ("limited", "Expand")),
    ],
    ids=lambda value: value[1] if isinstance(value, tuple) else "",
)  # fmt: skip
def test_restrictions_are_found(tmp_path: Path, nodes: list, initializers: dict, finding: tuple[str, str]) -> None:
    assert finding in found(lint(model_of(nodes, initializers=initializers, folder=tmp_path), "g"))


def test_axes_and_opsets_beyond_the_limits_are_unsupported(tmp_path: Path) -> None:
    nine = lint(model_of([node("Relu", "x", "y")], folder=tmp_path, rank=9), "g")
    assert ("unsupported", "graph") in found(nine)
    old = lint(model_of([node("Relu", "x", "y")], folder=tmp_path, opset=8), "g")
    assert "opset 8" in next(item.text for item in old.findings)


def test_table_names_its_version_and_source_and_knows_only_onnx_operations() -> None:
    table = operator_table()
    assert table["tensorrt"] == "10.15"
    assert "onnx-tensorrt" in table["source"]
    assert table["opsets"][0] <= OPSET <= max(TYPED_OPSET.values()) <= table["opsets"][1]
    known = {schema.name for schema in onnx.defs.get_all_schemas_with_history() if schema.domain == ""}
    assert set(table["operators"]) - known == {
        "ImageScaler",
        "ParametricSoftplus",
        "ScaledTanh",
    }  # of ONNX's first years


def test_command_prints_a_table_and_json_and_fails_only_for_graphs_that_plans_are_made_of(exported: Path) -> None:
    run = CliRunner().invoke(app, ["export", "lint", "--repository", str(exported)])
    assert run.exit_code == 0, run.output
    report = json.loads(run.stdout.splitlines()[-1])
    graphs = {graph["model"]: graph for graph in report["graphs"]}
    assert set(graphs) == set(graph_models(with_separator(PRESETS["tiny"], "htdemucs")))
    assert not graphs["heartmula_step"]["plan"]
    assert {
        "level": "limited",
        "operator": "graph",
        "text": "axis past_position may be 0: empty tensors",
        "count": 1,
    } in (graphs["heartmula_step"]["findings"])


def test_command_fails_for_a_graph_that_tensorrt_lacks(repository: Path) -> None:
    path = repository / "vocoder" / "1" / GRAPH_FILE
    model = onnx.load(path)
    model.graph.node[0].op_type = "Det"
    path.write_bytes(model.SerializeToString())
    run = CliRunner().invoke(app, ["export", "lint", "--repository", str(repository)])
    assert run.exit_code == 1
