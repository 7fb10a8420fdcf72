"""Converts swift-f0's published graph to the contract's names and to any batch size.

The published graph takes one row of samples. It becomes the body of an ONNX Scan over the batch, node by node:
onnxruntime runs it as fast as the original, and a batch cannot mix rows. Its frequency limits are inputs in the
published graph and constants here.

Source: swift-f0 0.3.0 (MIT), https://swift-f0.github.io.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, version_converter

from heartvoice.checkpoints.safetensors_reader import TensorSource
from heartvoice.config.presets import SwiftF0Config
from heartvoice.contracts.models import F0_NETWORK
from heartvoice.errors import CheckpointError
from heartvoice.export.graph_builder import Array, Graph, GraphBuilder, pinned
from heartvoice.export.layout import BATCH, OPSET, Precision, f0_axes

AUDIO, LOW, HIGH, PITCH, CONFIDENCE = "audio", "fmin", "fmax", "pitch", "confidence"
"""Inputs and outputs of the published graph: float32 [1, N] at 16 kHz and two numbers in Hz; [1, T] each."""
RANGE_HZ = (46.875, 2093.75)
"""Frequency range of the network in Hz, the wheel's default."""


class OnnxFile(TensorSource):
    """A published graph with its tensors."""

    def __init__(self, path: Path, model: onnx.ModelProto) -> None:
        """Use `OnnxFile.open`."""
        self.path, self.model = path, model
        self._tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        self.names = frozenset(self._tensors)

    @classmethod
    def open(cls, path: Path) -> OnnxFile:
        """Open a file with its weights inside.

        Raises:
            CheckpointError: it is missing, or is not an ONNX model.
        """
        try:
            model = onnx.load(path)
            onnx.checker.check_model(model)
        except Exception as error:  # protobuf, the checker and the file system raise unrelated classes
            raise CheckpointError(f"{path}: not a readable ONNX model: {error}") from error
        return cls(path, model)

    def __str__(self) -> str:
        """Return the file's path."""
        return str(self.path)

    def where(self, name: str) -> str:
        """Return file and tensor."""
        return f"{self.path}: {name}"

    def sha256(self) -> dict[str, str]:
        """Return the hash of the file by its name."""
        return {self.path.name: hashlib.sha256(self.path.read_bytes()).hexdigest()}

    def _stored_shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensors[name].shape)

    def _read(self, name: str) -> Array:
        return np.array(self._tensors[name])


def open_swift_f0(path: Path) -> OnnxFile:
    """Open the wheel's `model.onnx`.

    Raises:
        CheckpointError: it is missing or damaged, or has other inputs and outputs than swift-f0.
    """
    file = OnnxFile.open(path)
    graph = file.model.graph
    found = ([value.name for value in graph.input], [value.name for value in graph.output])
    if found != ([AUDIO, LOW, HIGH], [PITCH, CONFIDENCE]):
        raise CheckpointError(f"{path}: expected the graph of swift-f0, got inputs {found[0]} and outputs {found[1]}")
    return file


def build_swift_f0(sizes: SwiftF0Config, source: TensorSource, precision: Precision = "fp32") -> Graph:
    """Build the graph of `contracts.F0_NETWORK`: samples [B, 1, N] to Hz and confidence [B, T, 2].

    T = max(1, N // hop). The graph takes 135 kB and is in single precision at every `precision`.

    Raises:
        CheckpointError: `source` is not swift-f0's file.
    """
    if not isinstance(source, OnnxFile):
        raise CheckpointError(f"{source}: swift-f0 is taken from its published graph, not from tensors")
    b, axes = GraphBuilder(F0_NETWORK.name, precision), f0_axes(sizes)
    features = b.input(pinned(F0_NETWORK.inputs[0], axes), batch=BATCH)
    activations = b.output(pinned(F0_NETWORK.outputs[0], axes), batch=BATCH)
    b.op("Scan", features, out=activations, body=_row(source), num_scan_inputs=1)
    return b.graph


def _row(source: OnnxFile) -> onnx.GraphProto:
    """Build the Scan body from the published graph, one row [1, N] to [T, 2].

    Its tensors are part of the body, because onnxruntime does not fold outer tensors into a body (3 ms a call).
    """
    graph = version_converter.convert_version(source.model, OPSET).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    constants |= {name: np.array(hz, np.float32) for name, hz in zip((LOW, HIGH), RANGE_HZ, strict=True)}
    constants |= {"first_axis": np.array([0]), "last_axis": np.array([2])}
    nodes = [plain for node in graph.node for plain in _supported(_plain(node), constants)]
    nodes.append(helper.make_node("Cast", [PITCH], ["pitch_single"], to=int(TensorProto.FLOAT)))
    columns = [("pitch_single", "pitch_column"), (CONFIDENCE, "confidence_column")]
    nodes += [helper.make_node("Unsqueeze", [name, "last_axis"], [column]) for name, column in columns]
    nodes.append(helper.make_node("Concat", [column for _, column in columns], ["rows"], axis=2))
    nodes.append(helper.make_node("Squeeze", ["rows", "first_axis"], ["row"]))
    return helper.make_graph(
        nodes,
        "swift_f0_row",
        [helper.make_tensor_value_info(AUDIO, TensorProto.FLOAT, [1, None])],
        [helper.make_tensor_value_info("row", TensorProto.FLOAT, [None, 2])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )


def _supported(node: onnx.NodeProto, constants: dict[str, Array]) -> list[onnx.NodeProto]:
    """Replace the node by operations that TensorRT supports: it clips no integers."""
    bounds = [constants.get(name) for name in node.input[1:]]
    if node.op_type != "Clip" or len(bounds) != 2 or any(b is None or b.dtype.kind != "i" for b in bounds):
        return [node]
    value, low, high = node.input
    raised = f"{node.output[0]}_raised"
    return [helper.make_node("Max", [value, low], [raised]), helper.make_node("Min", [raised, high], node.output)]


def _plain(node: onnx.NodeProto) -> onnx.NodeProto:
    """Return the node without the exporter's names and metadata."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.ClearField("doc_string")
    copy.ClearField("name")
    del copy.metadata_props[:]
    return copy
