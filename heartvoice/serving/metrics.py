"""Metrics of a model's jobs on the server's own /metrics."""

from __future__ import annotations

from heartvoice.serving.workarounds.metric_families import MetricFamilies

_LIVE, _ENDED, _FRAMES = "heartvoice_jobs_live", "heartvoice_jobs_total", "heartvoice_frames_total"
_REFUSED, _STARTED = "heartvoice_jobs_refused_total", "heartvoice_jobs_started_total"
_QUEUED_S = "heartvoice_jobs_queue_seconds_total"


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

    def finished(self, outcome: str) -> None:
        """Count a finished job; the outcome is ok or an error's code."""
        self.change(_ENDED, 1, outcome=outcome)

    def frames_made(self, count: int) -> None:
        """Count LM frames."""
        self.change(_FRAMES, count)
