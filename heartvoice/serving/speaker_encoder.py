"""The model `speaker_encoder`: whose voice a recording is, over the native graph `speaker_network`."""

from __future__ import annotations

import json
from contextlib import closing

from heartvoice.audio.dsp import resample
from heartvoice.audio.recordings import read_recording
from heartvoice.contracts.constants import SPEECH_RATE_HZ
from heartvoice.contracts.field_checks import SPEECH_LIMITS_S, RecordingInputs
from heartvoice.contracts.models import SPEAKER_ENCODER
from heartvoice.runtime.repository import Repository
from heartvoice.serving.bls import BlsClient
from heartvoice.serving.jobs import Job
from heartvoice.serving.stage_model import Context, StageModel
from heartvoice.stages.speaker import SpeakerStage


def answer_embedding(job: Job, repository: Repository) -> None:
    """Answer a job of the model `speaker_encoder`."""
    sizes = repository.preset.speaker
    recording = read_recording(job.inputs, RecordingInputs(limits_s=SPEECH_LIMITS_S))
    audio = resample(recording.mono(), recording.sample_rate_hz, SPEECH_RATE_HZ)
    with closing(BlsClient(job.check)) as caller:
        embedding = SpeakerStage(caller, sizes).embed(audio)
    report = repository.about_network("speaker") | {
        "encoder": sizes.engine,
        "seconds": round(recording.duration_s, 3),
        "warnings": list(recording.mono_warnings),
    }
    job.answer({"EMBEDDING": embedding, "REPORT": json.dumps(report)})


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
