"""The model `heartmula`: frames of a scheduled song into responses."""

from __future__ import annotations

import json
import time
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from heartvoice.models.prompt import Tokenizer
from heartvoice.pipeline.messages import Progress
from heartvoice.runtime.repository import Repository
from heartvoice.serving.jobs import Job
from heartvoice.stages.lm.request import LmRequest, SongState
from heartvoice.stages.lm.scheduler import LmScheduler

FLUSH_S = 0.1
"""Frames are sent on after this long: a response costs about 0.3 ms, a frame on a fast engine less."""


def stream_codes(job: Job, scheduler: LmScheduler, tokenizer: Tokenizer, repository: Repository) -> None:
    """Make one job's song among the others; frames are sent on every `FLUSH_S`."""
    began = flushed = time.monotonic()
    request = LmRequest.from_inputs(job.inputs, repository.preset)
    pending: list[NDArray[np.int32]] = []
    n_sent = 0

    def flush() -> None:
        nonlocal n_sent, flushed
        if pending:
            job.send({"CODES": np.stack(pending, axis=1), "START": np.array([n_sent])})
            n_sent += len(pending)
            pending.clear()
        flushed = time.monotonic()
        job.send_event(asdict(Progress("lm", n_sent, request.n_frames, flushed - began)))

    with scheduler.submit(SongState(request, tokenizer, repository.preset), job.cancelled) as stream:
        for codes in stream:
            pending.append(codes)
            if time.monotonic() - flushed >= FLUSH_S:
                flush()
        flush()
    timings = {"lm_s": time.monotonic() - began, "queue_s": stream.queue_s}
    report = repository.about | {
        "seed": request.seed,
        "frames": n_sent,
        "ended_by": "eos" if n_sent < request.n_frames else "length",
        "timings": {name: round(seconds, 4) for name, seconds in timings.items()},
    }
    job.send({"REPORT": json.dumps(report)})
