"""The model `heartcodec`: one window of codes into audio."""

from __future__ import annotations

from heartvoice.contracts.models import HEARTCODEC
from heartvoice.runtime.networks import JobNetworks, LocalNetworks
from heartvoice.serving.bls import BlsClient, ServedNetworks
from heartvoice.serving.jobs import Job
from heartvoice.serving.stage_model import Context, StageModel
from heartvoice.stages.codec import CodecRequest, CodecStage


class HeartcodecModel(StageModel):
    """Triton adapter of `heartcodec`. It runs the flow itself and calls the native decoder graph."""

    spec = HEARTCODEC

    def build(self, context: Context) -> None:
        """Open the graphs that run in this process."""
        self.sizes = context.repository.preset.codec
        self.networks = self.local = LocalNetworks(context.repository, engine=context.parameters["engine"])
        self.networks.load("heartcodec_condition", "heartcodec_flow")

    def work(self, job: Job) -> None:
        """Decode one window."""
        networks = JobNetworks(ServedNetworks(BlsClient(job.check), self.networks), job.check)
        stage = CodecStage(networks, self.sizes)
        audio, latents = stage.decode_window(CodecRequest.from_inputs(job.inputs, self.sizes))
        job.answer({"AUDIO": audio, "LATENTS": latents})
