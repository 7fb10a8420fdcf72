"""What a job yields, as responses."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict

import numpy as np

from heartvoice.pipeline.messages import AudioPiece, CodesPiece, Finished, Message, Progress, StemsPiece
from heartvoice.serving.jobs import Job


def send_messages(job: Job, messages: Iterable[Message]) -> None:
    """Each message of a pipeline as one response."""
    for message in messages:
        match message:
            case AudioPiece(audio, start):
                job.send({"AUDIO": audio, "START": np.array([start])})
            case StemsPiece(stems, start):
                job.send({"STEMS": stems, "START": np.array([start])})
            case CodesPiece(codes, start):
                job.send({"CODES": codes, "START": np.array([start])})
            case Progress():
                job.send_event(asdict(message))
            case Finished(report):
                job.send({"REPORT": json.dumps(report)})
