"""The model `heartmula`: the code frames of a song, sent as the scheduler makes them."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from heartvoice.contracts.messages import Event
from heartvoice.contracts.models import HEARTMULA
from heartvoice.models.prompt import Tokenizer, load_tokenizer
from heartvoice.models.vocabulary import LyricVocabulary
from heartvoice.runtime.repository import Repository
from heartvoice.serving.jobs import Job
from heartvoice.serving.lm_metrics import LmMetrics
from heartvoice.serving.stage_model import Context, StageModel
from heartvoice.stages.lm.factory import open_engine
from heartvoice.stages.lm.request import LmRequest
from heartvoice.stages.lm.scheduler import LmScheduler
from heartvoice.stages.lm.song_state import SongState

FLUSH_S = 0.1
"""Interval between responses: a response costs about 0.3 ms, a frame on a fast engine less."""


@dataclass(frozen=True)
class LyricReader:
    """Tokenizer and vocabulary of the language model."""

    tokenizer: Tokenizer
    vocabulary: LyricVocabulary | None
    """None: it is open."""

    @classmethod
    def of(cls, repository: Repository) -> LyricReader:
        """Open both."""
        path = repository.tokenizer
        return cls(load_tokenizer(path), LyricVocabulary.open(path, repository.preset.ids))


def stream_codes(job: Job, scheduler: LmScheduler, reader: LyricReader, repository: Repository) -> None:
    """Answer a job of the model `heartmula`: the scheduler makes its song among others."""
    began = flushed = time.monotonic()
    request = LmRequest.from_inputs(job.inputs, repository.preset).within(reader.vocabulary)
    pending: list[NDArray[np.int32]] = []
    n_sent = 0

    def flush() -> None:
        nonlocal n_sent, flushed
        if pending:
            job.send({"CODES": np.stack(pending, axis=1), "START": np.array([n_sent])})
            n_sent += len(pending)
            pending.clear()
        flushed = time.monotonic()
        job.send_event(asdict(Event("lm", n_sent, request.n_frames, flushed - began)))

    with scheduler.submit(SongState(request, reader.tokenizer, repository.preset), job.cancelled) as stream:
        for codes in stream:
            pending.append(codes)
            if time.monotonic() - flushed >= FLUSH_S:
                flush()
        flush()
    timings = {"lm_s": time.monotonic() - began, "queue_s": stream.queue_s}
    report = repository.about("lm") | {
        "seed": request.seed,
        "frames": n_sent,
        "ended_by": "eos" if n_sent < request.n_frames else "length",
        "timings": {name: round(seconds, 4) for name, seconds in timings.items()},
    }
    if reader.vocabulary is not None:
        report |= {"unknown_words": request.replaced, "warnings": reader.vocabulary.warnings(request.replaced)}
    job.send({"REPORT": json.dumps(report)})


class HeartmulaModel(StageModel):
    """Triton adapter of `heartmula`. One scheduler makes all admitted songs, each in a slot of the engine."""

    spec = HEARTMULA
    thread_per_job = True

    def build(self, context: Context) -> None:
        """Open tokenizer, vocabulary and engine."""
        self.repository = context.repository
        self.reader = LyricReader.of(context.repository)
        self.n_slots, self.max_waiting = (int(context.parameters[name]) for name in ("max_jobs", "max_queue"))
        limit = context.parameters.get("kv_bytes")  # default: a song of full length in every slot
        self.engine = open_engine(
            self.repository, context.parameters["engine"],
            n_slots=self.n_slots, kv_limit=None if limit is None else int(limit),
            weights=context.parameters.get("weights"),
        )  # fmt: skip

    def initialize(self, args: dict[str, str]) -> None:
        """Start the scheduler once the engine is open."""
        super().initialize(args)
        self.scheduler = LmScheduler(self.engine, max_waiting=self.max_waiting, observer=LmMetrics(self.jobs.metrics))

    def work(self, job: Job) -> None:
        """Stream the codes of one song."""
        stream_codes(job, self.scheduler, self.reader, self.repository)
