"""The messages of a pipeline as responses."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict

import numpy as np

from heartvoice.contracts.messages import Chunk, Event, Message
from heartvoice.serving.jobs import Job


def send_messages(job: Job, messages: Iterable[Message]) -> None:
    """Send each message of a pipeline as one response."""
    for message in messages:
        if isinstance(message, Chunk):
            job.send({message.output: message.payload, "START": np.array([message.start])})
        elif isinstance(message, Event):
            job.send_event(asdict(message))
        else:
            job.send({"REPORT": json.dumps(message.raw)})
