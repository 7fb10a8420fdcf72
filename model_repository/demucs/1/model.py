"""Triton adapter of `demucs`: a recording into its stems, over the native graph `htdemucs`."""

from heartvoice import contracts
from heartvoice.serving.jobs import Job
from heartvoice.serving.stage_model import Context, StageModel
from heartvoice.serving.voices import stream_stems


class TritonPythonModel(StageModel):
    spec = contracts.DEMUCS

    def build(self, context: Context) -> None:
        self.repository = context.repository
        self.repository.preset  # noqa: B018 - read it now, so that a broken repository fails the load

    def work(self, job: Job) -> None:
        stream_stems(job, self.repository)
