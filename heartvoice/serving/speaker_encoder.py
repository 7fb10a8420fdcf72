"""The model `speaker_encoder`: whose voice a recording is, over `speaker_network`, `svc_style` and `f0_network`."""

from __future__ import annotations

import json
from contextlib import closing

from heartvoice.audio.dsp import resample
from heartvoice.audio.recordings import read_recording
from heartvoice.contracts.constants import REFERENCE_CHECK_MODES, SPEECH_RATE_HZ
from heartvoice.contracts.field_checks import SPEECH_LIMITS_S, RecordingInputs, read_word
from heartvoice.contracts.graphs import SVC_STYLE
from heartvoice.contracts.models import SPEAKER_ENCODER
from heartvoice.runtime.repository import Repository
from heartvoice.serving.bls import BlsClient
from heartvoice.serving.jobs import Job
from heartvoice.serving.stage_model import Context, StageModel
from heartvoice.stages.f0 import F0Stage
from heartvoice.stages.reference import STYLE_JUDGE, Embed, ReferenceCheck
from heartvoice.stages.speaker import SpeakerStage


def answer_embedding(job: Job, repository: Repository) -> None:
    """Answer a job of the model `speaker_encoder`."""
    sizes = repository.preset.speaker
    recording = read_recording(job.inputs, RecordingInputs(limits_s=SPEECH_LIMITS_S))
    audio = resample(recording.mono(), recording.sample_rate_hz, SPEECH_RATE_HZ)
    mode = read_word(job.inputs, "reference_check", REFERENCE_CHECK_MODES) or "off"
    reference = ReferenceCheck(audio, mode, field="file" if "file" in job.inputs else "audio")
    with closing(BlsClient(job.check)) as caller:
        speaker = SpeakerStage(caller, sizes)
        embedding = speaker.embed(audio)
        if mode != "off" and not repository.is_random("f0"):
            reference.hear(F0Stage(caller, repository.preset.f0).track)
        judges: dict[str, Embed] = {}
        vectors: dict[str, list[float]] = {}
        if not repository.is_random("svc_style"):
            judges[STYLE_JUDGE] = SpeakerStage(caller, repository.preset.style, network=SVC_STYLE.name).embed
            if sizes.engine != STYLE_JUDGE:
                vectors[STYLE_JUDGE] = [round(float(value), 6) for value in judges[STYLE_JUDGE](audio)]
        if not repository.is_random("speaker"):
            judges[sizes.engine] = speaker.embed
        reference.compare(judges)
    report = repository.about("speaker") | {
        "encoder": sizes.engine,
        "seconds": round(recording.duration_s, 3),
        "warnings": [*recording.mono_warnings, *reference.warnings],
        "reference": reference.facts,
        "vectors": vectors,
    }
    job.answer({"EMBEDDING": embedding, "REPORT": json.dumps(report)})


class SpeakerEncoderModel(StageModel):
    """Triton adapter of `speaker_encoder`. It calls native graphs alone."""

    spec = SPEAKER_ENCODER

    def build(self, context: Context) -> None:
        """Read the preset, so that a broken repository fails the load."""
        self.repository = context.repository
        self.repository.preset  # noqa: B018

    def work(self, job: Job) -> None:
        """Answer with one embedding."""
        answer_embedding(job, self.repository)
