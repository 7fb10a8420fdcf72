"""Writes a built graph to disk: streams weights one at a time and hashes them.

Above a threshold the weights go to `model.onnx.data` next to the graph (a protobuf file is limited to 2 GB), each at an
aligned offset, so that a runtime can map the file instead of copying it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
from onnx import TensorProto, helper

from heartvoice.errors import ExportError
from heartvoice.export.graph_builder import Array, Graph, Weight
from heartvoice.export.layout import EXTERNAL_BYTES, IR_VERSION, OPSET
from heartvoice.file_errors import naming, write_file

GRAPH_FILE = "model.onnx"
DATA_FILE = "model.onnx.data"
_ALIGNMENT = 4096
_SMALL = 1024
"""Tensors up to this size in bytes stay in the graph, because shape inference reads them."""
_CHUNK = 16 * 2**20

Progress = Callable[[int], None]
"""Called with the number of weight bytes just written."""


def write_graph(
    graph: Graph,
    folder: Path,
    *,
    external_bytes: int = EXTERNAL_BYTES,
    progress: Progress | None = None,
    opset: int = OPSET,
) -> dict[str, dict[str, str | int]]:
    """Write `model.onnx`, and `model.onnx.data` if the weights exceed `external_bytes`.

    Args:
        graph: a finished graph; its weights are made here and freed, one after another.
        folder: existing folder; files in it are overwritten.
        external_bytes: threshold.
        progress: called after each weight.
        opset: of the standard operations.

    Returns:
        sha256 and size in bytes of each file by name.

    Raises:
        OSError: a file cannot be written; names it.
        ExportError: a weight has another shape than declared, is not finite, or overflows half precision; or the graph
            is not valid ONNX.
    """
    files: dict[str, dict[str, str | int]] = {}
    tensors: list[TensorProto] = []
    if graph.nbytes > external_bytes:
        with naming(folder / DATA_FILE), (folder / DATA_FILE).open("wb") as stream:
            data = _HashedFile(stream)
            for weight in graph.weights:
                tensors.append(_external(weight, data) if weight.nbytes > _SMALL else _inline(weight))
                _report(progress, weight)
        files[DATA_FILE] = {"sha256": data.digest.hexdigest(), "bytes": data.position}
    else:
        for weight in graph.weights:
            tensors.append(_inline(weight))
            _report(progress, weight)
    body = _model(graph, tensors, opset).SerializeToString(deterministic=True)
    path = folder / GRAPH_FILE
    write_file(path, body)
    files[GRAPH_FILE] = {"sha256": hashlib.sha256(body).hexdigest(), "bytes": len(body)}
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except Exception as error:  # the checker and shape inference raise several unrelated types
        raise ExportError(f"{graph.name}: not valid ONNX: {error}") from error
    return files


def _model(graph: Graph, tensors: list[TensorProto], opset: int) -> onnx.ModelProto:
    proto = helper.make_graph(graph.nodes, graph.name, graph.inputs, graph.outputs, tensors)
    opsets = [helper.make_opsetid("", opset)]
    opsets += [helper.make_opsetid(domain, 1) for domain in sorted({node.domain for node in graph.nodes} - {""})]
    return helper.make_model(proto, opset_imports=opsets, ir_version=IR_VERSION, producer_name="heartvoice")


def _values(weight: Weight) -> Array:
    """Make the values in the stored dtype and in contiguous memory."""
    array = weight.make()
    if array.shape != weight.shape:
        raise ExportError(f"{weight.name}: expected {list(weight.shape)}, got {list(array.shape)}")
    if not np.issubdtype(weight.dtype, np.floating):
        return np.ascontiguousarray(array, dtype=weight.dtype)
    with np.errstate(over="ignore"):
        stored = np.ascontiguousarray(array, dtype=weight.dtype)
    if weight.checked and not np.isfinite(stored).all():
        reason = "is not finite" if not np.isfinite(array).all() else "overflows half precision"
        raise ExportError(f"{weight.name}: {reason}")
    return stored


def _inline(weight: Weight) -> TensorProto:
    array = _values(weight)
    tensor = TensorProto(name=weight.name, dims=weight.shape, data_type=helper.np_dtype_to_tensor_dtype(array.dtype))
    tensor.raw_data = array.tobytes()
    return tensor


def _external(weight: Weight, data: _HashedFile) -> TensorProto:
    array = _values(weight)
    tensor = TensorProto(name=weight.name, dims=weight.shape, data_type=helper.np_dtype_to_tensor_dtype(array.dtype))
    tensor.data_location = TensorProto.EXTERNAL
    data.align()
    for key, value in (("location", DATA_FILE), ("offset", data.position), ("length", array.nbytes)):
        tensor.external_data.add(key=key, value=str(value))
    data.write(array.reshape(-1).view(np.uint8).data)
    return tensor


def _report(progress: Progress | None, weight: Weight) -> None:
    if progress is not None:
        progress(weight.nbytes)


class _HashedFile:
    """A stream that tracks its position and hash."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream, self.position, self.digest = stream, 0, hashlib.sha256()

    def align(self) -> None:
        self.write(memoryview(b"\0" * (-self.position % _ALIGNMENT)))

    def write(self, values: memoryview) -> None:
        for start in range(0, len(values), _CHUNK):
            part = values[start : start + _CHUNK]
            self.stream.write(part)
            self.digest.update(part)
        self.position += len(values)
