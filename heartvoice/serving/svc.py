"""The model `svc`: vocals in another voice."""

from __future__ import annotations

import json
import threading
from contextlib import closing

import numpy as np

from heartvoice.arrays import Array
from heartvoice.contracts.constants import FRAMES_PER_S, MAX_RESPONSE_BYTES, STEM_RATE_HZ
from heartvoice.contracts.graphs import SVC_FLOW
from heartvoice.contracts.models import SVC
from heartvoice.contracts.network_names import CONVERTER_NETWORKS
from heartvoice.contracts.settings import FORGET
from heartvoice.runtime.networks import JobNetworks, LocalNetworks
from heartvoice.runtime.repository import Repository
from heartvoice.serving.bls import BlsClient, ServedNetworks
from heartvoice.serving.idle_memory import trim
from heartvoice.serving.jobs import Job
from heartvoice.serving.stage_model import Context, StageModel
from heartvoice.stages.svc.converter import Converter
from heartvoice.stages.svc.request import ConversionRequest, voice_to_forget

_MAX_RESPONSE_VOCALS = MAX_RESPONSE_BYTES // 4
"""Samples of one response."""


def stream_conversion(job: Job, converter: Converter, local: LocalNetworks, repository: Repository) -> None:
    """Answer a job of the model `svc`: converted vocals as they are finished."""
    request = ConversionRequest.from_inputs(job.inputs)
    job.forget_inputs("vocals", "voice", "voice_audio")
    total = round(len(request.vocals) / STEM_RATE_HZ * FRAMES_PER_S)
    about = repository.about(*CONVERTER_NETWORKS)
    about |= {"voice_sha256": request.voice_key, "voice_consent": request.consent}
    n_sent = 0
    requests = [request]
    del request  # the converter frees its vocals, up to a whole song's
    with closing(BlsClient(job.check)) as caller:
        networks = JobNetworks(ServedNetworks(caller, local), job.check)
        for chunk in converter.convert(networks, requests.pop()):
            if job.is_internal and not n_sent and not len(chunk.vocals) and chunk.report is None:
                job.send({"START": np.array([0])})  # the caller needs its vocals no longer
            for at in range(0, len(chunk.vocals), _MAX_RESPONSE_VOCALS):
                part = chunk.vocals[at : at + _MAX_RESPONSE_VOCALS]
                job.send({"VOCALS": part, "START": np.array([n_sent])})
                n_sent += len(part)
                done = round(n_sent / STEM_RATE_HZ * FRAMES_PER_S)
                job.send_event({"stage": "convert", "done": done, "total": max(done, total)})
            if chunk.report is not None:
                outputs: dict[str, Array | str | bytes] = {} if chunk.state is None else {"STATE": chunk.state}
                facts = {"samples": n_sent, "sample_rate_hz": STEM_RATE_HZ, "voices": converter.voices.report()}
                job.send(outputs | {"REPORT": json.dumps(about | facts | dict(chunk.report))})


class SvcModel(StageModel):
    """Triton adapter of `svc`. Its flow runs in this process, and it caches the voices of earlier requests."""

    spec = SVC

    def build(self, context: Context) -> None:
        """Open the flow's graph."""
        self.repository = context.repository
        self.networks = self.local = LocalNetworks(context.repository, engine=context.parameters["engine"])
        self.networks.load(SVC_FLOW.name)
        self.converter = Converter(context.repository.preset)

    def answers_at_once(self, job: Job) -> bool:
        """Forget a voice if that is asked for: in a thread of its own, since a reference takes a moment to decode."""
        if FORGET.name not in job.inputs or not job.inputs[FORGET.name][0]:
            return False
        threading.Thread(target=self._forget, args=(job,), name="svc-forget", daemon=True).start()
        return True

    def _forget(self, job: Job) -> None:
        try:
            n_forgotten = self.converter.forget(voice_to_forget(job.inputs))
            trim()
            job.send({"REPORT": json.dumps({"forgotten": n_forgotten})})
            job.close()
        except Exception as error:
            job.fail_safely(error)

    def work(self, job: Job) -> None:
        """Convert one piece of vocals."""
        stream_conversion(job, self.converter, self.networks, self.repository)
