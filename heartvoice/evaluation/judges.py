"""The judges of an evaluation: speaker encoders, an F0 estimator, DNSMOS and Whisper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from heartvoice.arrays import Array
from heartvoice.evaluation.dnsmos import Dnsmos
from heartvoice.evaluation.lyrics import LyricJudge
from heartvoice.runtime.engines import Engine
from heartvoice.stages.f0 import F0Stage
from heartvoice.stages.speaker import SpeakerStage

RESEMBLYZER, CAMPPLUS, ECAPA, WAVLM = "resemblyzer", "campplus", "ecapa", "wavlm"
SWIFT_F0, DNSMOS = "swift-f0", "dnsmos"
LYRICS = "lyrics"


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
    lyrics: LyricJudge | None = None
