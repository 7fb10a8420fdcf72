"""Triton adapter of `render`: a whole song as one encoded file."""

from heartvoice import contracts
from heartvoice.serving.jobs import Job
from heartvoice.serving.songs import render_song
from heartvoice.serving.stage_model import Context, StageModel


class TritonPythonModel(StageModel):
    spec = contracts.RENDER

    def build(self, context: Context) -> None:
        self.repository = context.repository

    def work(self, job: Job) -> None:
        render_song(job, self.repository)
