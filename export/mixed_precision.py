"""Converts a float32 graph to a strongly typed one: half precision, except for the float32 regions.

TensorRT takes the type of every layer from the graph (its networks are strongly typed), so precision is written as Cast
nodes. Inputs and outputs stay float32. The builders mark a region in the names of its nodes
(`GraphBuilder.fp32_region`). The choice of regions follows from measurements (`emulate.py`, docs/how-to/gpu.md).

Nodes that only move values keep the type of their input, so nothing is rounded before a float32 region. Integers stay
exact: a Cast to float32 stays one. Loops (swift-f0's Scan) stay float32 with their whole body.

In fp16 both inputs of a MatMul are cast to float32 and its result back. TensorRT makes one kernel of that, with fp16
inputs and float32 sums ("Control of Computational Precision" in its documentation); without the casts it might sum in
fp16. bfloat16 products are summed in float32 in any case.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import ExternalDataInfo

from heartvoice.errors import ExportError
from heartvoice.export.graph_builder import FP32_REGIONS, Array, Fp32Region, Graph, Weight
from heartvoice.export.layout import OPSET

HalfPrecision = Literal["bf16", "fp16"]
HALVES: tuple[HalfPrecision, ...] = get_args(HalfPrecision)
ONNX_HALF: dict[HalfPrecision, int] = {"bf16": TensorProto.BFLOAT16, "fp16": TensorProto.FLOAT16}
NUMPY_HALF: dict[HalfPrecision, type[np.generic]] = {"bf16": ml_dtypes.bfloat16, "fp16": np.float16}
SINGLE = int(TensorProto.FLOAT)
TYPED_OPSET: dict[HalfPrecision, int] = {"bf16": 22, "fp16": OPSET}
"""Conv takes bfloat16 from opset 22 on; from 20 to 22, our operations gained types and nothing else."""

RULES = 1
"""Version of the typing rules; a higher number makes plans be built again."""
MOVERS = frozenset(
    {"Concat", "Expand", "Flatten", "Gather", "Identity", "Pad", "Reshape", "Slice", "Split", "Squeeze", "Tile",
     "Transpose", "Unsqueeze", "Where"}
)  # fmt: skip
"""Operations whose results are values of their inputs."""
_LOOPS = frozenset({"If", "Loop", "Scan"})
_NEVER_HALF = frozenset({"Cast", *_LOOPS})


@dataclass(frozen=True)
class Typed:
    """A strongly typed graph, with its tensor types and node counts."""

    graph: Graph
    types: dict[str, int]
    """ONNX element type of every tensor of the graph."""
    counts: dict[str, int]
    """Number of nodes in half, in each float32 region, and of casts."""


def fp32_region_of(node: onnx.NodeProto) -> Fp32Region | None:
    """Return the float32 region that a node was built in, or None."""
    prefix, dot, _ = node.name.partition(".")
    return next((name for name in FP32_REGIONS if name == prefix), None) if dot else None


def type_graph(path: Path, precision: HalfPrecision, fp32_regions: Collection[Fp32Region] = FP32_REGIONS) -> Typed:
    """Type a float32 graph.

    Args:
        path: its file; large weights may lie beside it, and are read when the result is written.
        precision: of everything outside the float32 regions.
        fp32_regions: the regions that stay float32.

    Raises:
        ExportError: the file is not ONNX, or holds half precision already.
    """
    try:
        model = onnx.shape_inference.infer_shapes(onnx.load(str(path), load_external_data=False), strict_mode=True)
    except Exception as error:  # protobuf and shape inference raise several unrelated types
        raise ExportError(f"{path}: cannot be typed: {error}") from error
    return _Typing(model, path.parent, precision, frozenset(fp32_regions)).run()


def read_initializer(tensor: onnx.TensorProto, folder: Path) -> Array:
    """Read the values of a tensor, from the graph or its external file."""
    if tensor.data_location != TensorProto.EXTERNAL:
        return np.array(numpy_helper.to_array(tensor))
    where = ExternalDataInfo(tensor)
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    with (folder / where.location).open("rb") as stream:
        stream.seek(where.offset or 0)
        data = stream.read(int(np.prod(tensor.dims, dtype=np.int64)) * dtype.itemsize)
    values: Array = np.frombuffer(data, dtype).reshape(tuple(tensor.dims))
    return values


class _Typing:
    """One pass over one graph."""

    def __init__(
        self, model: onnx.ModelProto, folder: Path, precision: HalfPrecision, fp32_regions: frozenset[str]
    ) -> None:
        source = model.graph
        self.source, self.folder, self.precision, self.fp32_regions = source, folder, precision, fp32_regions
        self.half = int(ONNX_HALF[precision])
        self.initializers = {tensor.name: tensor for tensor in source.initializer}
        self.outputs = {info.name for info in source.output}
        self.before = {info.name: info.type.tensor_type.elem_type for info in _infos(source)}
        self.before |= {name: tensor.data_type for name, tensor in self.initializers.items()}
        self.types = {info.name: info.type.tensor_type.elem_type for info in source.input}
        self.graph = Graph(source.name, precision, inputs=list(source.input), outputs=list(source.output))
        self.counts: Counter[str] = Counter()
        self._there: set[str] = set(self.types)
        self._inside: dict[str, str] = {}  # tensors whose name an output took over

    def run(self) -> Typed:
        if self.half in self.before.values() or TensorProto.FLOAT16 in self.before.values():
            raise ExportError(f"{self.source.name}: expected a float32 graph, got one with half precision in it")
        for node in self.source.node:
            self._node(node)
        return Typed(self.graph, self.types, dict(sorted(self.counts.items())))

    # --------------------------------------------------------------------------------------------------------- nodes

    def _node(self, node: onnx.NodeProto) -> None:
        kind = self._kind(node)
        half = kind == self.half
        wide = half and node.op_type == "MatMul" and self.precision == "fp16"
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        del copy.input[:], copy.output[:]
        copy.input.extend(self._input(name, kind, wide=wide) for name in node.input)
        names = [self._output(name, kind, wide=wide) for name in node.output]
        copy.output.extend(names)
        self.graph.nodes.append(copy)
        for name, inner in zip(node.output, names, strict=True):
            if wide:
                self._cast(inner, self.half, self._inside.get(name, name))
            if name in self._inside:
                self._cast(self._inside[name], SINGLE, name)
        if any(self.before.get(name) == SINGLE for name in node.output):
            self.counts["half" if half else fp32_region_of(node) or "moved or exact"] += 1

    def _kind(self, node: onnx.NodeProto) -> int:
        """Return the type of a node's float tensors."""
        if node.op_type in _NEVER_HALF or fp32_region_of(node) in self.fp32_regions:
            return SINGLE
        if not any(self.before.get(name) == SINGLE for name in node.output):
            return SINGLE  # a comparison: its inputs stay as exact as they are
        if node.op_type not in MOVERS:
            return self.half
        found = [self.types[self._name(name)] for name in node.input if self._is_float(name)]
        return SINGLE if SINGLE in found else self.half

    def _is_float(self, name: str) -> bool:
        """Return True for a computed float32 tensor; a weight takes the type of its consumer."""
        return self.before.get(name) == SINGLE and name not in self.initializers

    def _name(self, name: str) -> str:
        """Return the current name of a tensor's values in the typed graph."""
        return self._inside.get(name, name)

    def _input(self, name: str, kind: int, *, wide: bool) -> str:
        if not name or self.before.get(name) != SINGLE:
            return self._weight(name, self.before[name]) if name in self.initializers else name
        if name in self.initializers:
            wanted = self._weight(name, kind)
        else:
            here = self._name(name)
            wanted = here if self.types[here] == kind else self._cast(here, kind, f"{here}.{self._suffix(kind)}")
        return self._cast(wanted, SINGLE, f"{wanted}.wide") if wide else wanted

    def _output(self, name: str, kind: int, *, wide: bool) -> str:
        """Return the name of a node's result; a graph output takes its name from a Cast after the node."""
        if self.before.get(name) != SINGLE:
            if name:
                self.types[name] = self.before[name]
            return name
        if kind == self.half and name in self.outputs:
            self._inside[name] = f"{name}.{self.precision}"
        inner = self._name(name)
        self.types[inner] = kind
        if not wide:
            return inner
        self.types[f"{inner}.sum"] = SINGLE
        return f"{inner}.sum"

    def _suffix(self, kind: int) -> str:
        return self.precision if kind == self.half else "fp32"

    def _cast(self, name: str, to: int, out: str) -> str:
        """Cast a tensor to another type; a repeated cast reuses the first."""
        if out not in self._there:
            self._there.add(out)
            self.types[out] = to
            self.graph.nodes.append(helper.make_node("Cast", [name], [out], name=f"cast.{out}", to=to))
            self.counts["casts"] += 1
        return out

    # ------------------------------------------------------------------------------------------------------- weights

    def _weight(self, name: str, kind: int) -> str:
        """Return a weight in the requested type; it is stored once per type."""
        out = f"{name}.{self.precision}" if kind == self.half else name
        if out not in self._there:
            self._there.add(out)
            self.types[out] = kind
            tensor = self.initializers[name]
            dtype = NUMPY_HALF[self.precision] if kind == self.half else helper.tensor_dtype_to_np_dtype(kind).type
            make = partial(read_initializer, tensor, self.folder)
            # Masks hold -inf; nothing else may overflow.
            checked = kind == self.half
            self.graph.weights.append(Weight(out, tuple(tensor.dims), dtype, make, checked=checked))
        return out


def _infos(graph: onnx.GraphProto) -> Iterator[Any]:
    yield from graph.input
    yield from graph.value_info
    yield from graph.output
