"""Opens engines over published weights for evaluation judges, without an exported repository."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from heartvoice.config.presets import AnySpeaker, SwiftF0Config
from heartvoice.export.f0_graph import build_f0_network
from heartvoice.export.graph_builder import Graph
from heartvoice.export.speaker_graph import build_speaker_network
from heartvoice.export.swift_f0 import open_swift_f0
from heartvoice.export.writer import GRAPH_FILE, write_graph
from heartvoice.models.load import TensorSource
from heartvoice.runtime.engines import Engine, OnnxEngine


def speaker_engine(sizes: AnySpeaker, source: TensorSource) -> Engine:
    """Open a speaker encoder.

    Raises:
        ExportError: the weights do not fit the sizes.
    """
    return _engine(build_speaker_network(sizes, source))


def swift_f0_engine(sizes: SwiftF0Config, path: Path) -> Engine:
    """Open swift-f0 from the ONNX file of its wheel.

    Raises:
        CheckpointError: the file has other content.
    """
    return _engine(build_f0_network(sizes, open_swift_f0(path)))


def _engine(graph: Graph) -> Engine:
    """Write a graph to a temporary file and open it."""
    with TemporaryDirectory(prefix="heartvoice-judge-") as folder:
        write_graph(graph, Path(folder))
        return OnnxEngine(Path(folder) / GRAPH_FILE)
