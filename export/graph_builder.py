"""Builds ONNX graphs with deterministic names, lazily made weights and optional half precision.

Graphs are written by hand and not traced. Their bytes depend on the weights and on this code alone, a full-size graph
takes a second, and no weight is in memory before the writer needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from heartvoice.contracts.types import Axis, TensorSpec
from heartvoice.export.layout import Precision

Array = npt.NDArray[Any]
Shape = tuple[int, ...]

_ONNX_TYPE: dict[str, int] = {
    "FP32": TensorProto.FLOAT,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "BOOL": TensorProto.BOOL,
}


Fp32Region = Literal[
    "norm", "softmax", "rope", "time", "residual", "snake", "filter", "levels", "lookup", "sampling", "recurrence"
]
"""Parts of a graph that may have to stay float32 where the rest runs in half (`mixed_precision.py`):

norm: norms, and means and deviations over long axes; softmax; rope: angles, their tables, and the turn by them;
time: the flow's time embedding and its modulation; residual: the residual stream of all layers; snake: sine,
square and sum; filter: the low-pass filters around it; levels: rounding to the decoder's levels; lookup: sums of table
rows; sampling: logits into codes; recurrence: LSTM and GRU.
"""
FP32_REGIONS: tuple[Fp32Region, ...] = get_args(Fp32Region)


@dataclass(frozen=True)
class Weight:
    """A tensor of the graph; its values are made when the file is written."""

    name: str
    shape: Shape
    dtype: type[np.generic]
    make: Callable[[], Array]
    checked: bool = True
    """True if all values must be finite; false for the graph's own constants, whose masks hold -inf."""

    @property
    def nbytes(self) -> int:
        """Size in the file in bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


@dataclass
class Graph:
    """A finished graph; its weights are made later."""

    name: str
    precision: Precision | Literal["bf16"]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    outputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    weights: list[Weight] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        """Bytes of all weights."""
        return sum(weight.nbytes for weight in self.weights)


class GraphBuilder:
    """Adds nodes in order and names their outputs.

    Every float value between two operations is float32. Only `matmul` and `conv` take half precision inputs if the
    graph's precision is fp16; their weights are then stored in half.
    """

    def __init__(self, name: str, precision: Precision = "fp32") -> None:
        """Start an empty graph."""
        self.graph = Graph(name, precision)
        self._counts: dict[str, int] = {}
        self._weights: dict[str, Weight] = {}
        self._constants: dict[tuple[str, Shape, bytes], str] = {}
        self._halves: dict[str, str] = {}
        self._island: str = ""

    # ------------------------------------------------------------------------------------------------- boundary

    def input(self, spec: TensorSpec, *, batch: str = "") -> str:
        """Declare an input of the contract, with a leading batch axis if one is named."""
        self.graph.inputs.append(value_info(spec, batch))
        return spec.name

    def output(self, spec: TensorSpec, *, batch: str = "") -> str:
        """Declare an output; one operation must take its name as `out`."""
        self.graph.outputs.append(value_info(spec, batch))
        return spec.name

    def weight(self, name: str, shape: Shape, make: Callable[[], Array], *, half: bool = False) -> str:
        """Declare a tensor whose values are made later.

        Args:
            name: unique; a second declaration of the same name returns the first.
            shape: shape of the values that `make` returns.
            make: returns the values, in any float dtype.
            half: store it in half precision if the graph is fp16; only `matmul`, `conv` and `embed` read such tensors.
        """
        if name not in self._weights:
            dtype: type[np.generic] = np.float16 if half and self.graph.precision == "fp16" else np.float32
            self._weights[name] = Weight(name, shape, dtype, make)
            self.graph.weights.append(self._weights[name])
        return name

    def constant(self, value: object, dtype: type[np.generic] = np.int64) -> str:
        """Add a small tensor as part of the graph; equal constants share one tensor."""
        array = np.asarray(value, dtype=dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            name = self._fresh("constant")
            self._constants[key] = name
            self.graph.weights.append(Weight(name, array.shape, dtype, lambda: array, checked=False))
        return self._constants[key]

    # -------------------------------------------------------------------------------------------------- operations

    @contextmanager
    def fp32_region(self, name: Fp32Region) -> Iterator[None]:
        """Mark the nodes added in the block by their names, such as `norm.Sqrt_3`; the outermost region counts."""
        before, self._island = self._island, self._island or f"{name}."
        try:
            yield
        finally:
            self._island = before

    def op(self, kind: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        """Add one node with one output; `out` names it, as a graph output must be."""
        return self.ops(kind, *inputs, outs=(out,), **attributes)[0]

    def ops(self, kind: str, *inputs: str, outs: Sequence[str], **attributes: Any) -> tuple[str, ...]:
        """Add one node with several outputs; empty names are filled in."""
        label = self._island + self._fresh(kind)
        filled = len(outs) == 1 and (outs[0] or label)
        names = [filled] if filled else [name or f"{label}_{index}" for index, name in enumerate(outs)]
        # Attributes are sorted so that the bytes do not depend on the order of keyword arguments.
        node = helper.make_node(kind, list(inputs), names, name=label, **dict(sorted(attributes.items())))
        self.graph.nodes.append(node)
        return tuple(names)

    def matmul(self, x: str, y: str, *, out: str = "") -> str:
        """Matrix product, in half precision if the graph is fp16."""
        if self.graph.precision == "fp32":
            return self.op("MatMul", x, y, out=out)
        return self.single(self.op("MatMul", self.half(x), self.half(y)), out=out)

    def linear(
        self, x: str, weight: str, bias: str | None = None, *, residual: str | None = None, out: str = ""
    ) -> str:
        """`x @ weight + bias + residual` with the weight stored [in, out]."""
        steps = [addend for addend in (bias, residual) if addend]
        y = self.matmul(x, weight, out="" if steps else out)
        for addend in steps:
            last = out if addend is steps[-1] else ""
            y = self.add_residual(y, addend, out=last) if addend is residual else self.op("Add", y, addend, out=last)
        return y

    def add_residual(self, x: str, y: str, *, out: str = "") -> str:
        """Add a layer's output to its residual input."""
        with self.fp32_region("residual"):
            return self.op("Add", x, y, out=out)

    def conv(self, x: str, weight: str, bias: str | None, *, kind: str = "Conv", **attributes: Any) -> str:
        """Add a convolution (or `kind="ConvTranspose"`), in half precision if the graph is fp16."""
        if self.graph.precision == "fp32":
            return self.op(kind, x, weight, *([bias] if bias else []), **attributes)
        y = self.single(self.op(kind, self.half(x), weight, **attributes))
        return self.op("Add", y, self.op("Unsqueeze", bias, self.constant([1]))) if bias else y

    def embed(self, table: str, ids: str) -> str:
        """Look up rows of a table, float32."""
        rows = self.op("Gather", table, ids, axis=0)
        return self.single(rows) if self._is_half(table) else rows

    def rms_norm(self, x: str, scale: str, eps: float) -> str:
        """Add `x / sqrt(mean(x^2) + eps) * scale` over the last axis, in a form that onnxruntime fuses."""
        with self.fp32_region("norm"):
            square = self.op("Pow", x, self.constant(2.0, np.float32))
            mean = self.op("ReduceMean", square, self.constant([-1]), keepdims=1)
            root = self.op("Sqrt", self.op("Add", mean, self.constant(eps, np.float32)))
            return self.op("Mul", self.op("Div", x, root), scale)

    def layer_norm(self, x: str, *scales: str, eps: float, out: str = "") -> str:
        """Add a layer norm over the last axis with a gain and an optional bias."""
        with self.fp32_region("norm"):
            return self.op("LayerNormalization", x, *scales, axis=-1, epsilon=eps, out=out)

    def softmax(self, x: str, axis: int) -> str:
        """Softmax over an axis."""
        with self.fp32_region("softmax"):
            return self.op("Softmax", x, axis=axis)

    def silu(self, x: str) -> str:
        """`x * sigmoid(x)`."""
        return self.op("Mul", x, self.op("Sigmoid", x))

    def reshape(self, x: str, shape: Sequence[int], *, out: str = "") -> str:
        """Reshape; 0 keeps an axis, -1 is inferred."""
        return self.op("Reshape", x, self.constant(list(shape)), out=out)

    def transpose(self, x: str, *axes: int, out: str = "") -> str:
        """Reorder axes."""
        return self.op("Transpose", x, perm=list(axes), out=out)

    def split(self, x: str, sizes: Sequence[int], axis: int) -> tuple[str, ...]:
        """Cut an axis into parts of the given sizes."""
        return self.ops("Split", x, self.constant(list(sizes)), outs=("",) * len(sizes), axis=axis)

    def slice(self, x: str, start: int | str, end: int | str | None, axis: int, *, out: str = "") -> str:
        """`x[start:end]` along one axis; bounds are numbers or int64 [1] values; no end means all."""
        first = self.constant([start]) if isinstance(start, int) else start
        last = self.constant([np.iinfo(np.int64).max if end is None else end]) if not isinstance(end, str) else end
        return self.op("Slice", x, first, last, self.constant([axis]), out=out)

    def size(self, x: str, axis: int) -> str:
        """Length of an axis, int64 [1]."""
        return self.op("Shape", x, start=axis, end=axis + 1)

    def arange(self, count: str) -> str:
        """`[0, 1, ... count)` for an int64 [1] count."""
        scalar = self.op("Squeeze", count)
        return self.op("Range", self.constant(0), scalar, self.constant(1))

    def half(self, x: str) -> str:
        """Cast the value to half precision; a repeated cast reuses the first."""
        if self._is_half(x):
            return x
        if x not in self._halves:
            self._halves[x] = self.op("Cast", x, to=int(TensorProto.FLOAT16))
        return self._halves[x]

    def single(self, x: str, *, out: str = "") -> str:
        """Cast the value to float32."""
        return self.op("Cast", x, to=int(TensorProto.FLOAT), out=out)

    # ----------------------------------------------------------------------------------------------------- private

    def _is_half(self, name: str) -> bool:
        return name in self._weights and self._weights[name].dtype is np.float16

    def _fresh(self, kind: str) -> str:
        number = self._counts.get(kind, 0)
        self._counts[kind] = number + 1
        return f"{kind}_{number}"


def value_info(spec: TensorSpec, batch: str = "") -> onnx.ValueInfoProto:
    """Declare a tensor of the contract with its dynamic axes by name."""
    dims: list[int | str] = [batch] if batch else []
    dims += [axis.name if isinstance(axis, Axis) else axis for axis in spec.shape]
    return helper.make_tensor_value_info(spec.name, _ONNX_TYPE[spec.dtype], dims)


def pinned(spec: TensorSpec, sizes: Mapping[str, int]) -> TensorSpec:
    """Return the tensor spec with the axes fixed that a preset determines."""
    shape = tuple(sizes.get(axis.name, axis) if isinstance(axis, Axis) else axis for axis in spec.shape)
    return TensorSpec(spec.name, spec.dtype, shape, spec.doc, spec.optional)
