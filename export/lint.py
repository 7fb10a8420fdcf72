"""Checks exported graphs against the published operator table of TensorRT's parser (`operators.json`).

An operator that is not in the table is reported as unknown, never as supported. Restrictions are checked where the
graph alone decides them, and listed otherwise. The parser on the target machine decides finally.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from heartvoice.errors import ExportError

Level = Literal["unsupported", "unknown", "limited"]
"""Not supported; not in the table; supported under a condition that the graph alone does not decide."""
TABLE = Path(__file__).with_name("operators.json")
MAX_TOPK = 3840
_TYPES: Mapping[int, str] = {
    TensorProto.FLOAT: "FP32", TensorProto.FLOAT16: "FP16", TensorProto.BFLOAT16: "BF16", TensorProto.DOUBLE: "DOUBLE",
    TensorProto.INT32: "INT32", TensorProto.INT64: "INT64", TensorProto.INT8: "INT8", TensorProto.UINT8: "UINT8",
    TensorProto.BOOL: "BOOL",
}  # fmt: skip
_SHAPE_INPUTS: Mapping[str, tuple[int, ...]] = {
    "Reshape": (1,), "Expand": (1,), "Tile": (1,), "ConstantOfShape": (0,), "Slice": (1, 2, 4), "Pad": (1,),
    "Range": (0, 1, 2), "TopK": (1,), "OneHot": (1,), "Resize": (3,), "Split": (1,),
}  # fmt: skip
"""Inputs whose values determine the shape of the result."""
_STANDARD = ("", "ai.onnx")
_DATA_DEPENDENT = frozenset({"Compress", "NonMaxSuppression", "NonZero", "Unique"})


@dataclass(frozen=True)
class Finding:
    """A property of a graph that is not plainly supported, and the number of occurrences."""

    level: Level
    operator: str
    """The operation, or `graph`."""
    text: str
    count: int = 1


@dataclass
class Lint:
    """The findings of one graph."""

    model: str
    opset: int
    n_nodes: int
    operators: dict[str, int]
    types: list[str]
    """Bytes of all tensors."""
    findings: list[Finding] = field(default_factory=list)

    def add(self, level: Level, operator: str, text: str) -> None:
        """Merge the findings of another lint."""
        self.findings.append(Finding(level, operator, text))

    def count(self, level: Level) -> int:
        """Return the number of findings at a level, in nodes or graph properties."""
        return sum(finding.count for finding in self.findings if finding.level == level)

    @property
    def clean(self) -> bool:
        """True if no operator is unsupported or unknown."""
        return not self.count("unsupported") and not self.count("unknown")

    def to_json(self) -> dict[str, Any]:
        """Return the findings as JSON for `export lint` and manifests."""
        return {**asdict(self), "clean": self.clean}


@cache
def operator_table(path: Path = TABLE) -> dict[str, Any]:
    """Load the committed table: TensorRT's version, opsets, and each operator's types and restriction (or null)."""
    table: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return table


def lint(path: Path, model: str, table: Mapping[str, Any] | None = None) -> Lint:
    """Check one graph.

    Args:
        path: the graph's file; external weights are not read.
        model: name of the model in the findings.
        table: operator table; default is the committed one.

    Raises:
        ExportError: the file is not ONNX.
    """
    try:
        proto = onnx.shape_inference.infer_shapes(onnx.load(str(path), load_external_data=False))
    except Exception as error:  # protobuf and shape inference raise several unrelated types
        raise ExportError(f"{path}: not a readable ONNX model: {error}") from error
    return _Linter(proto, model, operator_table() if table is None else table).run()


class _Linter:
    def __init__(self, proto: onnx.ModelProto, model: str, table: Mapping[str, Any]) -> None:
        self.proto, self.table = proto, table
        self.opset = next(entry.version for entry in proto.opset_import if entry.domain == "")
        self.found: Counter[tuple[Level, str, str]] = Counter()
        self.lint = Lint(model, self.opset, 0, {}, [])
        self.kinds: Counter[str] = Counter()
        self.all_types: set[str] = set()

    def run(self) -> Lint:
        low, high = self.table["opsets"]
        if not low <= self.opset <= high:
            self._add("unsupported", "graph", f"opset {self.opset}; the parser takes {low} to {high}")
        graph = self.proto.graph
        for info in (*graph.input, *graph.output):
            kind = _TYPES.get(info.type.tensor_type.elem_type, "?")
            if kind not in self.table["io_types"]:
                self._add("unsupported", "graph", f"{kind} input or output {info.name}")
        self.foreign = any(node.domain not in _STANDARD for node in graph.node)
        self._graph(graph, {})
        self.lint.operators = dict(sorted(self.kinds.items()))
        self.lint.n_nodes = sum(self.kinds.values())
        self.lint.types = sorted(self.all_types)
        ordered = sorted(self.found.items())
        self.lint.findings = [Finding(level, operator, text, count) for (level, operator, text), count in ordered]
        return self.lint

    def _add(self, level: Level, operator: str, text: str) -> None:
        self.found[level, operator, text] += 1

    def _graph(self, graph: onnx.GraphProto, outer: Mapping[str, int]) -> None:
        """Check every node of a graph or of a loop's body."""
        scope = _Scope(graph, outer)
        for name, dims in scope.dims.items():
            if dims > self.table["max_rank"]:
                self._add(
                    "unsupported", "graph", f"{name} has {dims} axes; TensorRT has at most {self.table['max_rank']}"
                )
        self.all_types |= {_TYPES.get(kind, "?") for kind in scope.types.values()}
        for node in graph.node:
            self.kinds[node.op_type] += 1
            self._node(node, scope)
            scope.note(node)
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.GRAPH:
                    self._graph(attribute.g, scope.types)

    def _node(self, node: onnx.NodeProto, scope: _Scope) -> None:  # noqa: C901 (one case an operator)
        kind = node.op_type
        if node.domain not in _STANDARD:
            self._add("unsupported", kind, f"an operation of {node.domain}; TensorRT takes the standard graphs")
        if self.foreign:
            return  # refused; an operator outside of ONNX gives no types
        if kind not in self.table["operators"]:
            self._add("unknown", kind, f"not in the table of TensorRT {self.table['tensorrt']}")
            return
        entry = self.table["operators"][kind]
        if entry is None:
            self._add("unsupported", kind, f"TensorRT {self.table['tensorrt']} does not have it")
            return
        for name in self._typed(node):
            self._type(node, scope.types.get(name), entry["types"])
        if kind in _DATA_DEPENDENT:
            self._add("limited", kind, "the result's shape depends on values: its size is known at run time alone")
        for index in _SHAPE_INPUTS.get(kind, ()):
            if index < len(node.input) and node.input[index] in scope.from_values:
                self._add("limited", kind, "a shape depends on values of an input, not on shapes alone")
        if kind in _RULES:
            text = _RULES[kind](node, scope)
            if text is not None:
                self._add("unsupported", kind, text)
        elif kind.startswith("Reduce") and len(node.input) > 1 and node.input[1] not in scope.constants:
            self._add("unsupported", kind, "axes must be an initializer")
        if kind in ("If", "Loop", "Scan"):
            self._add("limited", kind, entry.get("restriction") or "a loop: its body becomes one of TensorRT's")

    def _typed(self, node: onnx.NodeProto) -> Iterator[str]:
        """Return the tensors whose types the table restricts: those with the type of the first input or output."""
        schema = onnx.defs.get_schema(node.op_type, self.opset, node.domain)
        formal = schema.inputs[0].type_str if schema.inputs else schema.outputs[0].type_str
        for parameters, names in ((schema.inputs, node.input), (schema.outputs, node.output)):
            for index, name in enumerate(names):
                kind = parameters[min(index, len(parameters) - 1)].type_str
                if name and (kind == formal or (node.op_type in ("Cast", "Where") and kind.startswith("T"))):
                    yield name

    def _type(self, node: onnx.NodeProto, found: int | None, types: list[str]) -> None:
        name = _TYPES.get(found, "?") if found else None
        if name is None:
            self._add("unknown", node.op_type, "the type of a tensor cannot be inferred")
        elif name == "DOUBLE":
            self._add("limited", node.op_type, "DOUBLE is cast down to FP32")
        elif name not in types:
            self._add("unsupported", node.op_type, f"{name}; it takes {', '.join(types)}")


class _Scope:
    """Known values and types of a graph's tensors, updated node by node."""

    def __init__(self, graph: onnx.GraphProto, outer: Mapping[str, int]) -> None:
        infos = [*graph.input, *graph.value_info, *graph.output]
        self.types = dict(outer) | {
            info.name: info.type.tensor_type.elem_type for info in infos if info.type.tensor_type.elem_type
        }
        self.types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
        self.dims = {
            info.name: len(info.type.tensor_type.shape.dim) for info in infos if info.type.tensor_type.HasField("shape")
        }
        self.initializers = {tensor.name: tensor for tensor in graph.initializer}
        self.constants = set(self.initializers)
        self.from_values = {info.name for info in graph.input}
        """Tensors that depend on the values of inputs, not on their shapes alone."""

    def note(self, node: onnx.NodeProto) -> None:
        """Record the outputs of a node."""
        if node.op_type == "Constant":
            self.constants.update(node.output)
        elif node.op_type not in ("Shape", "Size") and not self.from_values.isdisjoint(node.input):
            self.from_values.update(node.output)
        # swift-f0's body states no types: if all inputs of a node have one type, its result has it too
        known = {self.types[name] for name in node.input if name in self.types}
        for name in node.output:
            if name and name not in self.types and len(known) == 1:
                self.types[name] = known.copy().pop()

    def value(self, name: str) -> np.ndarray[Any, Any] | None:
        """Return the values of a small initializer stored in the graph."""
        tensor = self.initializers.get(name)
        if tensor is None or tensor.data_location == TensorProto.EXTERNAL:
            return None
        return np.asarray(numpy_helper.to_array(tensor))


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    return next((helper.get_attribute_value(item) for item in node.attribute if item.name == name), default)


def _constant_second(node: onnx.NodeProto, scope: _Scope) -> str | None:
    constant = len(node.input) < 2 or node.input[1] in scope.constants or node.input[1] not in scope.from_values
    return None if constant else "its second input must be known when the plan is built"


def _one_result(node: onnx.NodeProto, _scope: _Scope) -> str | None:
    return "only the first output is supported" if any(node.output[1:]) else None


def _top_k(node: onnx.NodeProto, scope: _Scope) -> str | None:
    if not _attribute(node, "sorted", 1):
        return "sorted must be 1"
    count = scope.value(node.input[1])
    if count is not None and int(count.reshape(-1)[0]) >= MAX_TOPK:
        return f"K is {int(count.reshape(-1)[0])}, and must be below {MAX_TOPK}"
    return None


def _lstm(node: onnx.NodeProto, scope: _Scope) -> str | None:
    if _attribute(node, "layout", 0) or _attribute(node, "input_forget", 0):
        return "layout and input_forget must be 0"
    return _both_directions(node, scope)


def _both_directions(node: onnx.NodeProto, _scope: _Scope) -> str | None:
    activations = list(_attribute(node, "activations", []))
    half = len(activations) // 2
    bidirectional = _attribute(node, "direction", b"forward") == b"bidirectional"
    if bidirectional and activations[:half] != activations[half:]:
        return "both directions must have the same activations"
    return None


def _pool(node: onnx.NodeProto, scope: _Scope) -> str | None:
    if len(_attribute(node, "kernel_shape", [])) not in (2, 3):
        return "pooling over 2 or 3 axes only"
    return "no dilations" if set(_attribute(node, "dilations", [1])) != {1} else _one_result(node, scope)


def _scatter(node: onnx.NodeProto, _scope: _Scope) -> str | None:
    return None if _attribute(node, "reduction", b"none") == b"none" else "no reduction"


_RULES: Mapping[str, Callable[[onnx.NodeProto, _Scope], str | None]] = {
    "AveragePool": _pool,
    "CumSum": _constant_second,
    "GRU": _both_directions,
    "LSTM": _lstm,
    "LayerNormalization": _one_result,
    "MaxPool": _pool,
    "RNN": _both_directions,
    "ScatterND": _scatter,
    "Squeeze": _constant_second,
    "TopK": _top_k,
    "Unsqueeze": _constant_second,
}
"""Checks of the table's restrictions that a graph decides; each returns the violation or None."""
