"""The model `render`: a whole song or cover as one encoded file."""

from __future__ import annotations

from heartvoice.contracts.models import RENDER
from heartvoice.serving.cover import run_cover_job
from heartvoice.serving.jobs import Job
from heartvoice.serving.song import render, run_song_job
from heartvoice.serving.stage_model import Context, StageModel


class RenderModel(StageModel):
    """Triton adapter of `render`. A request with a recording is a cover, any other a song."""

    spec = RENDER

    def build(self, context: Context) -> None:
        """Keep the repository."""
        self.repository = context.repository

    def work(self, job: Job) -> None:
        """Make the song or cover, and answer with the file."""
        run = run_cover_job if {"file", "audio"} & set(job.inputs) else run_song_job
        render(job, run(job, self.repository))
