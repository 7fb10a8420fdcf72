"""Metrics of a model's jobs on the server's own /metrics."""

from __future__ import annotations

from heartvoice.serving.histograms import Histogram
from heartvoice.serving.job_record import JobRecord
from heartvoice.serving.workarounds.metric_families import MetricFamilies

_LIVE, _ENDED, _FRAMES = "heartvoice_jobs_live", "heartvoice_jobs_total", "heartvoice_frames_total"
_REFUSED, _STARTED = "heartvoice_jobs_refused_total", "heartvoice_jobs_started_total"
_QUEUED_S = "heartvoice_jobs_queue_seconds_total"
_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0)
_RTF = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 25.0)
_OF_A_JOB = (
    ("heartvoice_job_seconds", "From request to last answer", _SECONDS),
    ("heartvoice_job_first_audio_seconds", "From request to first audio", _SECONDS),
    ("heartvoice_job_rtf", "Seconds of work per second of audio", _RTF),
)
"""Histograms of jobs that ended well."""


class Metrics(MetricFamilies):
    """Prometheus metrics of one model."""

    def __init__(self, model: str) -> None:
        super().__init__(model=model)
        self.declare(_LIVE, "Jobs running or waiting", counter=False)
        self.declare(_ENDED, "Jobs that ended, by outcome", counter=True)
        self.declare(_FRAMES, "LM frames made", counter=True)
        for name, description in (
            (_REFUSED, "Jobs refused for want of room"),
            (_STARTED, "Jobs that a thread has taken up"),
            (_QUEUED_S, "Seconds that those waited for one; songs in heartmula wait for slots instead"),
        ):
            self.declare(name, description, counter=True)
            self.change(name, 0)  # shown from the start
        for name, description, bounds in _OF_A_JOB:
            for suffix in ("bucket", "sum", "count"):
                self.declare(f"{name}_{suffix}", f"{description} (histogram: {suffix})", counter=True)
            Histogram(bounds).report(self, name, zeros=True)

    def live(self, count: int) -> None:
        """Set the number of live jobs."""
        self.change(_LIVE, count)

    def refused(self) -> None:
        """Count a job that was refused for lack of capacity."""
        self.change(_REFUSED, 1)

    def started(self, queue_s: float) -> None:
        """Count a started job and the seconds that it waited."""
        self.change(_STARTED, 1)
        self.change(_QUEUED_S, queue_s)

    def finished(self, outcome: str, record: JobRecord) -> None:
        """Count a finished job; the outcome is ok or an error's code."""
        self.change(_ENDED, 1, outcome=outcome)
        if outcome == "ok":
            values = (record.seconds, record.first_audio_s, record.rtf)
            for value, (name, _, bounds) in zip(values, _OF_A_JOB, strict=True):
                if value is not None:
                    histogram = Histogram(bounds)  # of its own: jobs end in several threads
                    histogram.add(value)
                    histogram.report(self, name)

    def frames_made(self, count: int) -> None:
        """Count LM frames."""
        self.change(_FRAMES, count)
