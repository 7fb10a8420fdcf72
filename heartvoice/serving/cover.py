"""The model `cover`, and the stages of a conversion as calls to other models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from itertools import chain, islice

import numpy as np
from numpy.typing import NDArray

from heartvoice.arrays import Array
from heartvoice.config.presets import Preset
from heartvoice.contracts.constants import STEM_RATE_HZ
from heartvoice.contracts.graphs import SVC_STYLE
from heartvoice.contracts.messages import Message
from heartvoice.contracts.models import COVER
from heartvoice.contracts.network_names import COVER_NETWORKS
from heartvoice.errors import EngineError, VoiceNotFoundError
from heartvoice.pipeline.context import JobContext
from heartvoice.pipeline.cover import run_cover
from heartvoice.pipeline.cover_request import CoverRequest
from heartvoice.pipeline.watermarking import Watermark
from heartvoice.runtime.repository import Repository
from heartvoice.serving.bls import BlsClient
from heartvoice.serving.jobs import Job
from heartvoice.serving.responses import send_messages
from heartvoice.serving.stage_model import Context, StageModel
from heartvoice.serving.watermark import open_watermark
from heartvoice.stages.f0 import F0Stage
from heartvoice.stages.separation.request import SeparationRequest
from heartvoice.stages.speaker import SpeakerStage
from heartvoice.stages.svc.request import ConversionRequest, ConvertedChunk

Audio = NDArray[np.float32]


class ServedVoiceStages:
    """The stages of a conversion as calls to other models; a `VoiceStages`."""

    def __init__(self, caller: BlsClient, preset: Preset) -> None:
        self._caller = caller
        self._style = SpeakerStage(caller, preset.style, network=SVC_STYLE.name)
        self._f0 = F0Stage(caller, preset.f0)

    def separate(self, request: SeparationRequest) -> tuple[Audio, Audio | None]:
        """One window from the model `demucs`."""
        chunks: list[Audio] = []
        carry: Audio | None = None
        for response in self._caller.stream("demucs", request.to_inputs()):
            if "STEMS" in response:
                chunks.append(response["STEMS"].astype(np.float32))
            if "CARRY" in response:
                carry = response["CARRY"].astype(np.float32)
        if not chunks:
            raise EngineError("demucs: answered without stems")
        return np.concatenate(chunks, axis=2), carry

    def convert(self, request: ConversionRequest) -> Iterator[ConvertedChunk]:
        """Converted vocals from the model `svc`. It is sent the reference only if it has not cached the voice."""
        empty, state = np.empty(0, np.float32), None
        responses = self._accepted(request)
        del request  # its vocals, up to a whole song's
        for response in responses:
            if "VOCALS" in response:
                yield ConvertedChunk(response["VOCALS"].astype(np.float32))
            if "STATE" in response:
                state = response["STATE"].astype(np.float32)
            if "REPORT" in response:
                yield ConvertedChunk(empty, state, json.loads(bytes(response["REPORT"][0])))

    def _accepted(self, request: ConversionRequest) -> Iterator[dict[str, Array]]:
        """Responses to a request of which the first has come."""
        responses = self._caller.stream("svc", request.to_inputs(named=True))
        try:
            first = list(islice(responses, 1))
        except VoiceNotFoundError:
            responses = self._caller.stream("svc", request.to_inputs())
            first = list(islice(responses, 1))
        return chain(first, responses)

    def embed(self, audio: Audio) -> Audio:
        """The vector of the model `speaker_encoder`."""
        inputs: dict[str, Array] = {"audio": audio[None], "sample_rate": np.array([STEM_RATE_HZ])}
        vector: Audio = self._caller.run("speaker_encoder", inputs)["EMBEDDING"].astype(np.float32)
        return vector

    def embed_style(self, audio: Audio) -> Audio:
        """The unit vector from the native graph `svc_style`."""
        return self._style.embed(audio)

    def track_f0(self, audio: Audio) -> Audio:
        """The contour from the native graph `f0_network`."""
        return self._f0.track(audio)


def run_cover_job(job: Job, repository: Repository, watermark: Watermark | None) -> Iterator[Message]:
    """Check a job's inputs and make its cover; yields the cover's messages."""
    watermark = watermark and watermark.of_caller(job.inputs)
    context, preset = JobContext(repository.about(*COVER_NETWORKS), job.check, watermark), repository.preset
    with closing(BlsClient(job.check)) as caller:
        messages = run_cover(
            CoverRequest.from_inputs(job.inputs),
            ServedVoiceStages(caller, preset),
            preset,
            context,
            detect_vocals=not repository.is_random("separator"),
            random_networks=repository.random_networks,
        )
        job.forget_inputs("file", "audio")  # up to 100 MB, or a whole song, which the job has as samples now
        yield from messages


class CoverModel(StageModel):
    """Triton adapter of `cover`. Owns no weights."""

    spec = COVER

    def build(self, context: Context) -> None:
        """Read the preset and the watermark's key, so that a broken repository fails the load."""
        self.repository, self.watermark = context.repository, open_watermark(context.repository)
        self.repository.preset  # noqa: B018

    def work(self, job: Job) -> None:
        """Stream one cover."""
        send_messages(job, run_cover_job(job, self.repository, self.watermark))
