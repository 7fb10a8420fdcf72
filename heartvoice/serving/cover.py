"""The models `cover` and `svc`, and what a song with a voice shares with them: stages by BLS."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from heartvoice.arrays import Array
from heartvoice.config.presets import Preset
from heartvoice.contracts.constants import FRAMES_PER_S, MAX_RESPONSE_BYTES, STEM_RATE_HZ
from heartvoice.contracts.models import COVER
from heartvoice.errors import EngineError, VoiceNotFoundError
from heartvoice.pipeline.cover import CoverPipeline, CoverRequest
from heartvoice.pipeline.messages import Message
from heartvoice.runtime.networks import JobNetworks, LocalNetworks
from heartvoice.runtime.repository import Repository
from heartvoice.serving.bls import BlsClient, ServedNetworks
from heartvoice.serving.jobs import Job
from heartvoice.serving.responses import send_messages
from heartvoice.serving.stage_model import Context, StageModel
from heartvoice.stages.f0 import F0Stage
from heartvoice.stages.separation import SeparationPlan, SeparationRequest
from heartvoice.stages.svc.converter import ConversionRequest, ConvertedChunk, Converter

Audio = NDArray[np.float32]
_MOST = MAX_RESPONSE_BYTES // 4
"""Samples of one response of `svc`."""


class ServedVoiceStages:
    """The stages of another singer as BLS calls; a `revoice.VoiceStages`."""

    def __init__(self, caller: BlsClient, preset: Preset) -> None:
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

    def convert(self, request: ConversionRequest) -> Iterator[ConvertedChunk]:
        """The model `svc`, which is sent the reference only if it does not know the voice."""
        try:
            yield from self._convert(request.inputs(named=True))
            return
        except VoiceNotFoundError:
            pass
        yield from self._convert(request.inputs(named=False))

    def _convert(self, inputs: dict[str, Array]) -> Iterator[ConvertedChunk]:
        empty, state = np.empty(0, np.float32), None
        for response in self._caller.stream("svc", inputs):
            if "VOCALS" in response:
                yield ConvertedChunk(response["VOCALS"].astype(np.float32))
            if "STATE" in response:
                state = response["STATE"].astype(np.float32)
            if "REPORT" in response:
                yield ConvertedChunk(empty, state, json.loads(bytes(response["REPORT"][0])))

    def embed(self, audio: Audio) -> Audio:
        """The model `speaker_encoder`."""
        inputs: dict[str, Array] = {"audio": audio[None], "sample_rate": np.array([STEM_RATE_HZ])}
        vector: Audio = self._caller.run("speaker_encoder", inputs)["EMBEDDING"].astype(np.float32)
        return vector

    def track_f0(self, audio: Audio) -> Audio:
        """The native graph `f0_network`."""
        return self._f0.track(audio)


def run_cover_job(job: Job, repository: Repository) -> Iterator[Message]:
    """Check a job's inputs and make its cover through BLS."""
    request = CoverRequest.from_inputs(job.inputs)
    preset = repository.preset
    caller = BlsClient(job.check)
    try:
        yield from CoverPipeline(
            request,
            ServedVoiceStages(caller, preset),
            SeparationPlan(preset.separator),
            repository.about,
            encoder=preset.speaker.engine,
            detect_vocals=not repository.is_random("separator"),
        ).run(job.check)
    finally:
        caller.close()


def stream_cover(job: Job, repository: Repository) -> None:
    """The model `cover`: each message of the pipeline as one response."""
    send_messages(job, run_cover_job(job, repository))


def stream_conversion(job: Job, converter: Converter, local: LocalNetworks, repository: Repository) -> None:
    """The model `svc`: converted vocals as they are finished."""
    request = ConversionRequest.from_inputs(job.inputs)
    total = round(len(request.vocals) / STEM_RATE_HZ * FRAMES_PER_S)
    about = repository.about_network("svc_cfm", "svc_content", "svc_regulator", "svc_style", "vocoder")
    about |= {"voice_sha256": request.voice_key, "voice_consent": request.consent}
    caller = BlsClient(job.check)
    networks = JobNetworks(ServedNetworks(caller, local), job.check)
    n_sent = 0
    try:
        for piece in converter.convert(networks, request):
            for at in range(0, len(piece.vocals), _MOST):
                part = piece.vocals[at : at + _MOST]
                job.send({"VOCALS": part, "START": np.array([n_sent])})
                n_sent += len(part)
                done = round(n_sent / STEM_RATE_HZ * FRAMES_PER_S)
                job.send_event({"stage": "convert", "done": done, "total": max(done, total)})
            if piece.report is not None:
                outputs: dict[str, Array | str | bytes] = {} if piece.state is None else {"STATE": piece.state}
                facts = {"samples": n_sent, "sample_rate_hz": STEM_RATE_HZ, "voices": converter.voices.report()}
                job.send(outputs | {"REPORT": json.dumps(about | facts | dict(piece.report))})
    finally:
        caller.close()


class CoverModel(StageModel):
    """Triton adapter of `cover`. Owns no weights."""

    spec = COVER

    def build(self, context: Context) -> None:
        """Read the preset, so that a broken repository fails the load."""
        self.repository = context.repository
        self.repository.preset  # noqa: B018

    def work(self, job: Job) -> None:
        """Stream one cover."""
        stream_cover(job, self.repository)
