"""Triton adapter of `heartmula`: lyrics and tags into code frames, for many songs at once."""

from heartvoice.contracts.models import HEARTMULA
from heartvoice.models.prompt import load_tokenizer
from heartvoice.serving.heartmula import stream_codes
from heartvoice.serving.jobs import Job
from heartvoice.serving.lm_metrics import LmMetrics
from heartvoice.serving.stage_model import Context, StageModel
from heartvoice.stages.lm.factory import open_engine
from heartvoice.stages.lm.scheduler import LmScheduler


class TritonPythonModel(StageModel):
    spec = HEARTMULA
    thread_per_job = True

    def build(self, context: Context) -> None:
        self.repository = context.repository
        self.tokenizer = load_tokenizer(context.folder / "tokenizer.json")
        self.n_slots, self.max_waiting = (int(context.parameters[name]) for name in ("max_jobs", "max_queue"))
        limit = context.parameters.get("kv_bytes")  # default: a song of full length in every slot
        self.engine = open_engine(
            self.repository, context.parameters["engine"],
            n_slots=self.n_slots, kv_limit=None if limit is None else int(limit),
            weights=context.parameters.get("weights"),
        )  # fmt: skip

    def initialize(self, args: dict[str, str]) -> None:
        super().initialize(args)
        self.scheduler = LmScheduler(self.engine, max_waiting=self.max_waiting, observer=LmMetrics(self.jobs.metrics))

    def work(self, job: Job) -> None:
        stream_codes(job, self.scheduler, self.tokenizer, self.repository)
