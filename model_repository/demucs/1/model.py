"""Triton adapter of `demucs`: a recording into its stems, over the native graph `htdemucs`."""

from heartvoice.contracts.models import DEMUCS
from heartvoice.serving.jobs import Job
from heartvoice.serving.separation import stream_stems
from heartvoice.serving.stage_model import Context, StageModel


class TritonPythonModel(StageModel):
    spec = DEMUCS

    def build(self, context: Context) -> None:
        self.repository = context.repository
        self.repository.preset  # noqa: B018 - read it now, so that a broken repository fails the load

    def work(self, job: Job) -> None:
        stream_stems(job, self.repository)
