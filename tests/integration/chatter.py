"""Stands in for `model.py` of two models: one that says many things in quick succession, and one that asks it often."""

from __future__ import annotations

import os

import numpy as np

from heartvoice.contracts.constants import N_CODEBOOKS
from heartvoice.contracts.models import COVER, HEARTMULA
from heartvoice.serving.bls import BlsClient
from heartvoice.serving.jobs import Job
from heartvoice.serving.stage_model import Context, StageModel

N_ANSWERS, N_CALLS = 20, 5


class Speaker(StageModel):
    """Answers as fast as it can."""

    spec = HEARTMULA

    def build(self, context: Context) -> None:
        """Nothing to load."""

    def work(self, job: Job) -> None:
        """Codes that say which they are."""
        for index in range(N_ANSWERS):
            job.send({"CODES": np.full((N_CODEBOOKS, 1), index, np.int32), "START": np.array([index])})


class Asker(StageModel):
    """Asks one thing after another."""

    spec = COVER

    def build(self, context: Context) -> None:
        """Nothing to load."""

    def work(self, job: Job) -> None:
        """Every answer has to come, once and in its order."""
        inputs = {"lyrics": np.array([b"la"], np.object_), "tags": np.array([b""], np.object_)}
        for _ in range(N_CALLS):
            caller = BlsClient(job.check)
            came = [int(response["START"][0]) for response in caller.stream("heartmula", inputs)]
            caller.close()
            if came != list(range(N_ANSWERS)):
                raise AssertionError(came)
        job.send({"REPORT": "{}"})


TritonPythonModel = Asker if f"{os.sep}cover{os.sep}" in __file__ else Speaker
