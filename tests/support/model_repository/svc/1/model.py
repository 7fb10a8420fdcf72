"""A converter that returns its input: proves everything around it. Not part of the product."""

import json

import numpy as np

from heartvoice.contracts.models import SVC
from heartvoice.serving.jobs import Job
from heartvoice.serving.stage_model import Context, StageModel


class TritonPythonModel(StageModel):
    spec = SVC

    def build(self, context: Context) -> None:
        pass

    def work(self, job: Job) -> None:
        n_before = int(job.inputs["state"][0]) if "state" in job.inputs else 0
        vocals = job.inputs["vocals"]
        job.send({"VOCALS": vocals, "START": np.array([0])})
        report = json.dumps({"engine": "identity", "samples": n_before + len(vocals)})
        outputs: dict[str, np.ndarray | str] = {"REPORT": report}
        if bool(job.inputs["more"][0]):
            outputs["STATE"] = np.array([n_before + len(vocals)], np.float32)
        job.send(outputs)
