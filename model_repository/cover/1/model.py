"""Triton adapter of `cover`: a recording with another singer, streamed. Owns no weights."""

from heartvoice.contracts.models import COVER
from heartvoice.serving.cover import stream_cover
from heartvoice.serving.jobs import Job
from heartvoice.serving.stage_model import Context, StageModel


class TritonPythonModel(StageModel):
    spec = COVER

    def build(self, context: Context) -> None:
        self.repository = context.repository
        self.repository.preset  # noqa: B018 - read it now, so that a broken repository fails the load

    def work(self, job: Job) -> None:
        stream_cover(job, self.repository)
