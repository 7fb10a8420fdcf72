"""What is known of one job for metrics and log: times, amounts and names, nothing of its contents."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from heartvoice.arrays import Array
from heartvoice.contracts.constants import SAMPLE_RATE_HZ, STEM_RATE_HZ
from heartvoice.contracts.types import ModelSpec
from heartvoice.log_format import timestamp

MAX_ID_CHARS = 128
_RATES_HZ = {"AUDIO": SAMPLE_RATE_HZ, "STEMS": STEM_RATE_HZ, "VOCALS": STEM_RATE_HZ}
"""Sample rates of the outputs with audio. A model's own is the first of these that it has."""


def payload_of(spec: ModelSpec) -> str | None:
    """Return the output that holds the model's audio; None without one."""
    names = {tensor.name for tensor in spec.outputs}
    return next((name for name in _RATES_HZ if name in names), None)


class JobRecord:
    """Times and amounts of one job. Written by its threads, read at its end."""

    def __init__(self, spec: ModelSpec, request_id: str) -> None:
        """Start the clock.

        Args:
            spec: the model.
            request_id: the caller's own name of the request.
        """
        self.model = spec.name
        self.request_id = request_id[:MAX_ID_CHARS]
        self.wall = time.time()
        self.logged = False
        self.queue_s: float | None = None
        """Seconds until a thread took it up; None while it waits."""
        self.first_audio_s: float | None = None
        self.audio_s = 0.0
        self.stages: dict[str, float] = {}
        """Seconds of each stage, by the job's own report."""
        self.watermark: str | None = None
        """Payload of the mark in its sound, which leads from a file that is found to this job."""
        self._payload = payload_of(spec)
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the request came."""
        return time.monotonic() - self._began

    def started(self) -> None:
        """Record that a thread takes the job up."""
        self.queue_s = self.seconds

    def sent(self, outputs: Mapping[str, Array | str | bytes]) -> None:
        """Record a response."""
        samples = outputs.get(self._payload) if self._payload else None
        if isinstance(samples, np.ndarray) and samples.size:
            if self.first_audio_s is None:
                self.first_audio_s = self.seconds
            self.audio_s += samples.shape[-1] / _RATES_HZ[str(self._payload)]
        report = outputs.get("REPORT")
        if isinstance(report, str | bytes):
            self._read(json.loads(report))

    def _read(self, report: Mapping[str, Any]) -> None:
        self.stages = {
            name: round(float(seconds), 4)
            for name, seconds in report.get("timings", {}).items()
            if isinstance(seconds, int | float) and math.isfinite(seconds)
        }
        self.watermark = report.get("watermark", {}).get("payload")
        if not self.audio_s and report.get("sample_rate_hz"):  # of a model that answers with a file
            self.audio_s = report.get("samples", 0) / report["sample_rate_hz"]

    @property
    def rtf(self) -> float | None:
        """Seconds of work per second of audio; None without audio."""
        return (self.seconds - (self.queue_s or 0.0)) / self.audio_s if self.audio_s else None

    def facts(self, outcome: str) -> dict[str, Any]:
        """Return the job's line of the log; times in seconds, None for what never was."""
        mark = {} if self.watermark is None else {"watermark": self.watermark}
        return job_line(
            self.request_id, self.model, outcome, self.seconds, queue=_rounded(self.queue_s),
            first_audio=_rounded(self.first_audio_s), audio=_rounded(self.audio_s), stages=self.stages, **mark,
        )  # fmt: skip


def job_line(request_id: str, model: str, outcome: str, seconds: float, **more: Any) -> dict[str, Any]:
    """Return what the log's line of a job has at least."""
    return {
        "time": timestamp(), "id": request_id, "model": model, "outcome": outcome, "seconds": round(seconds, 3), **more,
    }  # fmt: skip


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
