"""The model `svc`: vocals in another voice."""

from __future__ import annotations

from heartvoice.contracts.graphs import SVC_FLOW
from heartvoice.contracts.models import SVC
from heartvoice.runtime.networks import LocalNetworks
from heartvoice.serving.cover import stream_conversion
from heartvoice.serving.jobs import Job
from heartvoice.serving.stage_model import Context, StageModel
from heartvoice.stages.svc.converter import Converter


class SvcModel(StageModel):
    """Triton adapter of `svc`. Its flow runs in this process, and it caches the voices of earlier requests."""

    spec = SVC

    def build(self, context: Context) -> None:
        """Open the flow's graph."""
        self.repository = context.repository
        self.local = LocalNetworks(context.repository, engine=context.parameters["engine"])
        self.local.load(SVC_FLOW.name)
        self.converter = Converter(context.repository.preset)

    def work(self, job: Job) -> None:
        """Convert one piece of vocals."""
        stream_conversion(job, self.converter, self.local, self.repository)
