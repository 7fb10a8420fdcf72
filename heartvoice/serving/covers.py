"""The model `cover`: its stages by BLS."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from heartvoice.contracts import STEM_RATE_HZ
from heartvoice.cover import Conversion, Converted, CoverPipeline, CoverRequest
from heartvoice.engines import Array
from heartvoice.errors import EngineError
from heartvoice.pipeline import Message
from heartvoice.presets import Preset
from heartvoice.repository import Repository
from heartvoice.serving.bls import Caller
from heartvoice.serving.jobs import Job
from heartvoice.serving.songs import send_messages
from heartvoice.stages.f0 import F0Stage
from heartvoice.stages.separate import SeparationPlan, SeparationRequest

Audio = NDArray[np.float32]


class ServedCoverStages:
    """The stages of a cover as BLS calls; a `cover.CoverStages`."""

    def __init__(self, caller: Caller, preset: Preset) -> None:
        self._caller = caller
        self._f0 = F0Stage(caller, preset.f0)

    def separate(self, request: SeparationRequest) -> tuple[Audio, Audio | None]:
        """One window through the model `demucs`."""
        inputs: dict[str, Array] = {
            "audio": request.audio,
            "sample_rate": np.array([STEM_RATE_HZ]),
            "context": np.array([request.context]),
            "more": np.array([request.more]),
            "sources": np.array([",".join(request.sources).encode()], np.object_),
        }
        if request.carry is not None:
            inputs["carry"] = request.carry
        pieces: list[Audio] = []
        carry: Audio | None = None
        for response in self._caller.stream("demucs", inputs):
            if "STEMS" in response:
                pieces.append(response["STEMS"].astype(np.float32))
            if "CARRY" in response:
                carry = response["CARRY"].astype(np.float32)
        if not pieces:
            raise EngineError("demucs: answered without stems")
        return np.concatenate(pieces, axis=2), carry

    def convert(self, request: Conversion) -> Converted:
        """One window through the model `svc`."""
        inputs: dict[str, Array] = {
            "vocals": request.vocals,
            "voice_audio": request.voice.audio44[None],
            "voice_sample_rate": np.array([STEM_RATE_HZ]),
            "voice_key": np.array([request.voice.sha256.encode()], np.object_),
            "seed": np.array([request.seed]),
            "more": np.array([request.more]),
        }
        if request.state is not None:
            inputs["state"] = request.state
        answer = self._caller.run("svc", inputs)
        report = json.loads(bytes(answer["REPORT"][0])) if "REPORT" in answer else {}
        return Converted(answer["VOCALS"].astype(np.float32), answer.get("STATE"), report)

    def embed(self, audio: Audio) -> Audio:
        """The model `speaker_encoder`."""
        inputs: dict[str, Array] = {"audio": audio[None], "sample_rate": np.array([STEM_RATE_HZ])}
        vector: Audio = self._caller.run("speaker_encoder", inputs)["EMBEDDING"].astype(np.float32)
        return vector

    def track_f0(self, audio: Audio) -> Audio:
        """The native graph `f0_network`."""
        return self._f0.track(audio)


def run_cover(job: Job, repository: Repository) -> Iterator[Message]:
    """Check a job's inputs and make its cover through BLS."""
    request = CoverRequest.from_inputs(job.inputs)
    preset = repository.preset
    caller = Caller(job.check)
    try:
        yield from CoverPipeline(
            request,
            ServedCoverStages(caller, preset),
            SeparationPlan(preset.separator),
            repository.about | {"speaker_encoder": preset.speaker.engine},
            detect_vocals=not repository.is_random("separator"),
        ).run(job.check)
    finally:
        caller.close()


def stream_cover(job: Job, repository: Repository) -> None:
    """The model `cover`: each message of the pipeline as one response."""
    send_messages(job, run_cover(job, repository))
