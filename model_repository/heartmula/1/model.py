"""Triton adapter of `heartmula`: lyrics and tags into code frames."""

from heartvoice import contracts
from heartvoice.engines import OnnxEngine
from heartvoice.models.prompt import load_tokenizer
from heartvoice.serving.jobs import Job
from heartvoice.serving.songs import stream_codes
from heartvoice.serving.stage_model import Context, StageModel
from heartvoice.stages.lm import LmStage


class TritonPythonModel(StageModel):
    spec = contracts.HEARTMULA

    def build(self, context: Context) -> None:
        self.repository = context.repository
        engine = OnnxEngine(self.repository.graph("heartmula_step"))
        self.stage = LmStage(engine, load_tokenizer(context.folder / "tokenizer.json"), self.repository.preset)

    def work(self, job: Job) -> None:
        stream_codes(job, self.stage, self.repository, self.jobs.metrics)
