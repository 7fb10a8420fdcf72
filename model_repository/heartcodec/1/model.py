"""Triton adapter of `heartcodec`: one window of codes into audio."""

from heartvoice.contracts.models import HEARTCODEC
from heartvoice.runtime.networks import JobNetworks, LocalNetworks
from heartvoice.serving.bls import BlsClient, ServedNetworks
from heartvoice.serving.jobs import Job
from heartvoice.serving.stage_model import Context, StageModel
from heartvoice.stages.codec import CodecRequest, CodecStage


class TritonPythonModel(StageModel):
    spec = HEARTCODEC

    def build(self, context: Context) -> None:
        self.sizes = context.repository.preset.codec
        self.local = LocalNetworks(context.repository, engine=context.parameters["engine"])
        self.local.load("heartcodec_condition", "heartcodec_flow")

    def work(self, job: Job) -> None:
        networks = JobNetworks(ServedNetworks(BlsClient(job.check), self.local), job.check)
        stage = CodecStage(networks, self.sizes)
        audio, latents = stage.decode_window(CodecRequest.from_inputs(job.inputs, self.sizes))
        job.answer({"AUDIO": audio, "LATENTS": latents})
