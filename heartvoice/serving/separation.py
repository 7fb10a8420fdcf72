"""The models `demucs` and `speaker_encoder`: signal processing over one native graph each."""

from __future__ import annotations

import json
import time

import numpy as np

from heartvoice.audio.dsp import resample
from heartvoice.audio.recordings import read_recording
from heartvoice.config.presets import SeparatorConfig
from heartvoice.contracts.constants import (
    FRAMES_PER_S,
    MAX_LEVEL,
    MAX_RECORDING_S,
    MAX_TEXT_BYTES,
    SPEECH_RATE_HZ,
    STEM_RATE_HZ,
)
from heartvoice.contracts.models import DEMUCS, SPEAKER_ENCODER
from heartvoice.contracts.validation import check_finite, check_text, read_int, read_settings, read_text
from heartvoice.errors import InvalidRequestError
from heartvoice.runtime.repository import Repository
from heartvoice.serving.bls import BlsClient
from heartvoice.serving.jobs import Job
from heartvoice.serving.stage_model import Context, StageModel
from heartvoice.stages.separation import Carry, SeparateStage, SeparationRequest
from heartvoice.stages.speaker import SpeakerStage

MIN_SPEECH_S = 0.5
"""Less says nothing about a speaker."""
_ANY_LENGTH_S = 0.0


def read_separation(job: Job, sizes: SeparatorConfig) -> tuple[SeparationRequest, tuple[str, ...]]:
    """A job's request to `demucs`, and the warnings about its recording.

    Raises:
        InvalidRequestError: names the field, the limit and the value.
    """
    inputs = job.inputs
    more = bool(read_settings(inputs, DEMUCS.settings)["more"])
    listed = read_text(inputs, "sources")
    check_text("sources", listed, MAX_TEXT_BYTES)
    named = [name.strip() for name in listed.split(",") if name.strip()]
    unknown = [name for name in named if name not in sizes.sources]
    if unknown:
        raise InvalidRequestError(f"sources: expected some of {', '.join(sizes.sources)}, got {', '.join(unknown)}")
    sources = tuple(name for name in sizes.sources if not named or name in named)
    recording = read_recording(inputs, min_s=_ANY_LENGTH_S, max_s=MAX_RECORDING_S)
    context, carry = read_int(inputs, "context", 0), inputs.get("carry")
    if not 0 <= context < recording.audio.shape[1]:
        raise InvalidRequestError(f"context: expected 0 to {recording.audio.shape[1] - 1} samples, got {context}")
    if (context or more or carry is not None) and recording.sample_rate_hz != STEM_RATE_HZ:
        raise InvalidRequestError(
            f"sample_rate: expected {STEM_RATE_HZ} of a recording in several requests, got {recording.sample_rate_hz}"
        )
    if carry is not None:
        check_finite("carry", carry, most=MAX_LEVEL)
        if carry.shape[0] != len(sources):
            raise InvalidRequestError(f"carry: expected {len(sources)} sources, got {carry.shape[0]}")
        carry = carry.astype(np.float32)
    audio = resample(recording.stereo(), recording.sample_rate_hz, STEM_RATE_HZ)
    return SeparationRequest(audio, context, carry, sources, more), recording.warnings


def stream_stems(job: Job, repository: Repository) -> None:
    """The model `demucs`: stems as their segments are finished."""
    began = time.monotonic()
    sizes = repository.preset.separator
    request, warnings = read_separation(job, sizes)
    caller = BlsClient(job.check)
    n_done, n_total = 0, request.audio.shape[1] - request.context
    try:
        for item in SeparateStage(caller, sizes).separate(request):
            if isinstance(item, Carry):
                job.send({"CARRY": item.carry, "START": np.array([n_done])})
                continue
            job.send({"STEMS": item.stems, "START": np.array([n_done])})
            n_done += item.stems.shape[2]
            done, total = (round(n / STEM_RATE_HZ * FRAMES_PER_S) for n in (n_done, n_total))
            job.send_event({"stage": "separate", "done": done, "total": total})
    finally:
        caller.close()
    report = repository.about_network("separator") | {
        "sources": list(request.sources),
        "sample_rate_hz": STEM_RATE_HZ,
        "samples": n_done,
        "warnings": list(warnings),
        "timings": {"separation_s": round(time.monotonic() - began, 4)},
    }
    job.send({"REPORT": json.dumps(report)})


def answer_embedding(job: Job, repository: Repository) -> None:
    """The model `speaker_encoder`."""
    sizes = repository.preset.speaker
    recording = read_recording(job.inputs, min_s=MIN_SPEECH_S, max_s=MAX_RECORDING_S)
    caller = BlsClient(job.check)
    try:
        audio = resample(recording.mono(), recording.sample_rate_hz, SPEECH_RATE_HZ)
        embedding = SpeakerStage(caller, sizes).embed(audio)
    finally:
        caller.close()
    report = repository.about_network("speaker") | {
        "encoder": sizes.engine,
        "seconds": round(recording.duration_s, 3),
        "warnings": list(recording.warnings),
    }
    job.answer({"EMBEDDING": embedding, "REPORT": json.dumps(report)})


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


class SpeakerEncoderModel(StageModel):
    """Triton adapter of `speaker_encoder`. It calls the native graph `speaker_network`."""

    spec = SPEAKER_ENCODER

    def build(self, context: Context) -> None:
        """Read the preset, so that a broken repository fails the load."""
        self.repository = context.repository
        self.repository.preset  # noqa: B018

    def work(self, job: Job) -> None:
        """Answer with one embedding."""
        answer_embedding(job, self.repository)
