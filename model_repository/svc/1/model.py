"""Triton adapter of `svc`: vocals in another voice. Its flow runs in this process; it keeps the voices it has heard."""

from heartvoice import contracts
from heartvoice.conversion import Converter
from heartvoice.networks import LocalNetworks
from heartvoice.serving.jobs import Job
from heartvoice.serving.revoicing import stream_conversion
from heartvoice.serving.stage_model import Context, StageModel
from heartvoice.svc_contracts import SVC_FLOW


class TritonPythonModel(StageModel):
    spec = contracts.SVC

    def build(self, context: Context) -> None:
        self.repository = context.repository
        self.local = LocalNetworks(context.repository, engine=context.parameters["engine"])
        self.local.load(SVC_FLOW.name)
        self.converter = Converter(context.repository.preset)

    def work(self, job: Job) -> None:
        stream_conversion(job, self.converter, self.local, self.repository)
