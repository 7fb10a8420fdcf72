"""Triton adapter of `song`: lyrics and tags into a streamed song. Owns no weights."""

from heartvoice.contracts.models import SONG
from heartvoice.serving.jobs import Job
from heartvoice.serving.song import stream_song
from heartvoice.serving.stage_model import Context, StageModel


class TritonPythonModel(StageModel):
    spec = SONG

    def build(self, context: Context) -> None:
        self.repository = context.repository
        self.repository.preset  # noqa: B018 - read it now, so that a broken repository fails the load

    def work(self, job: Job) -> None:
        stream_song(job, self.repository)
