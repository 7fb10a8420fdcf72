"""Triton adapter of `speaker_encoder`: who speaks or sings, over the native graph `speaker_network`."""

from heartvoice.contracts.models import SPEAKER_ENCODER
from heartvoice.serving.jobs import Job
from heartvoice.serving.separation import answer_embedding
from heartvoice.serving.stage_model import Context, StageModel


class TritonPythonModel(StageModel):
    spec = SPEAKER_ENCODER

    def build(self, context: Context) -> None:
        self.repository = context.repository
        self.repository.preset  # noqa: B018 - read it now, so that a broken repository fails the load

    def work(self, job: Job) -> None:
        answer_embedding(job, self.repository)
