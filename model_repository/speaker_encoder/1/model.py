"""Triton adapter of `speaker_encoder`: who speaks or sings, over the native graph `speaker_network`."""

from heartvoice import contracts
from heartvoice.serving.jobs import Job
from heartvoice.serving.stage_model import Context, StageModel
from heartvoice.serving.voices import answer_embedding


class TritonPythonModel(StageModel):
    spec = contracts.SPEAKER_ENCODER

    def build(self, context: Context) -> None:
        self.repository = context.repository
        self.repository.preset  # noqa: B018 - read it now, so that a broken repository fails the load

    def work(self, job: Job) -> None:
        answer_embedding(job, self.repository)
