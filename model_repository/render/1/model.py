"""Triton adapter of `render`: a whole song or cover as one encoded file."""

from heartvoice.contracts.models import RENDER
from heartvoice.serving.cover import run_cover_job
from heartvoice.serving.jobs import Job
from heartvoice.serving.song import render, run_song_job
from heartvoice.serving.stage_model import Context, StageModel


class TritonPythonModel(StageModel):
    spec = RENDER

    def build(self, context: Context) -> None:
        self.repository = context.repository

    def work(self, job: Job) -> None:
        run = run_cover_job if {"file", "audio"} & set(job.inputs) else run_song_job
        render(job, run(job, self.repository))
