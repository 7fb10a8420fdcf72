"""The model `demucs`: a recording into its stems, over the native graph `htdemucs`."""

from __future__ import annotations

import json
import time
from contextlib import closing

import numpy as np

from heartvoice import __version__
from heartvoice.contracts.attribution import STEMS, attribution
from heartvoice.contracts.constants import FRAMES_PER_S, STEM_RATE_HZ
from heartvoice.contracts.models import DEMUCS
from heartvoice.runtime.repository import Repository
from heartvoice.serving.bls import BlsClient
from heartvoice.serving.jobs import Job
from heartvoice.serving.stage_model import Context, StageModel
from heartvoice.stages.separation.request import Carry, SeparationRequest
from heartvoice.stages.separation.stage import SeparateStage


def stream_stems(job: Job, repository: Repository) -> None:
    """Answer a job of the model `demucs`: stems as their segments are finished."""
    began = time.monotonic()
    sizes = repository.preset.separator
    request = SeparationRequest.from_inputs(job.inputs, sizes)
    n_done, n_total = 0, request.audio.shape[1] - request.context
    with closing(BlsClient(job.check)) as caller:
        for item in SeparateStage(caller, sizes).separate(request):
            if isinstance(item, Carry):
                job.send({"CARRY": item.carry, "START": np.array([n_done])})
                continue
            job.send({"STEMS": item.stems, "START": np.array([n_done])})
            n_done += item.length
            done, total = (round(n / STEM_RATE_HZ * FRAMES_PER_S) for n in (n_done, n_total))
            job.send_event({"stage": "separate", "done": done, "total": total})
    report = (
        {"heartvoice": __version__}
        | repository.about("separator")
        | {
            "separator": sizes.engine,
            "sources": list(request.sources),
            "sample_rate_hz": STEM_RATE_HZ,
            "samples": n_done,
            "warnings": list(request.warnings),
            "timings": {"separation_s": round(time.monotonic() - began, 4)},
        }
    )
    report |= {"attribution": attribution(report, STEMS), "signed": False}
    job.send({"REPORT": json.dumps(report)})


class DemucsModel(StageModel):
    """Triton adapter of `demucs`. It calls the native graph `htdemucs`."""

    spec = DEMUCS

    def build(self, context: Context) -> None:
        """Read the preset, so that a broken repository fails the load."""
        self.repository = context.repository
        self.repository.preset  # noqa: B018

    def work(self, job: Job) -> None:
        """Stream the stems of one recording."""
        stream_stems(job, self.repository)
