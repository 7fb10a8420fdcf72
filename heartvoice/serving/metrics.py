"""Counts of a model's jobs on the server's own /metrics."""

from __future__ import annotations

import threading
from typing import Any

import triton_python_backend_utils as pb_utils

_OF_ADMISSION = {
    "refused_total": "Jobs refused for want of room",
    "started_total": "Jobs that a thread has taken up",
    "queue_seconds_total": "Seconds that those waited for one; songs in heartmula wait for slots instead",
}


class Metrics:
    """Prometheus metrics of one model, on the server's own /metrics."""

    def __init__(self, model: str) -> None:
        self._labels = {"model": model}
        # Two threads in one metric at once kill the whole server with SIGSEGV (2.51): its message is not locked.
        self._lock = threading.Lock()
        kinds = pb_utils.MetricFamily
        # Triton deletes a metric with its family, so the families are kept as long as this object.
        self._families = {
            "live": kinds(name="heartvoice_jobs_live", description="Jobs running or waiting", kind=kinds.GAUGE),
            "jobs": kinds(name="heartvoice_jobs_total", description="Jobs that ended, by outcome", kind=kinds.COUNTER),
            "frames": kinds(name="heartvoice_frames_total", description="LM frames made", kind=kinds.COUNTER),
            **{
                name: kinds(name=f"heartvoice_jobs_{name}", description=text, kind=kinds.COUNTER)
                for name, text in _OF_ADMISSION.items()
            },
        }
        self._live = self._families["live"].Metric(labels=self._labels)
        self._admission = {name: self._families[name].Metric(labels=self._labels) for name in _OF_ADMISSION}
        self._frames: Any = None
        self._by_outcome: dict[str, Any] = {}
        self._counters: set[str] = set()
        self._declared: dict[tuple[str, tuple[tuple[str, str], ...]], Any] = {}

    def live(self, count: int) -> None:
        """Set the number of live jobs."""
        with self._lock:
            self._live.set(count)

    def refused(self) -> None:
        """Count a job for which there was no room."""
        with self._lock:
            self._admission["refused_total"].increment(1)

    def started(self, queue_s: float) -> None:
        """Count a job that a thread has taken up, and how long it waited."""
        with self._lock:
            self._admission["started_total"].increment(1)
            self._admission["queue_seconds_total"].increment(queue_s)

    def finished(self, outcome: str) -> None:
        """Count a job that ended, by outcome: ok or an error's code."""
        with self._lock:
            if outcome not in self._by_outcome:
                self._by_outcome[outcome] = self._families["jobs"].Metric(labels={**self._labels, "outcome": outcome})
            self._by_outcome[outcome].increment(1)

    def frames_made(self, count: int) -> None:
        """Count LM frames."""
        with self._lock:
            if self._frames is None:
                self._frames = self._families["frames"].Metric(labels=self._labels)
            self._frames.increment(count)

    def declare(self, name: str, description: str, *, counter: bool) -> None:
        """Add a family of counters or gauges."""
        kind = pb_utils.MetricFamily.COUNTER if counter else pb_utils.MetricFamily.GAUGE
        with self._lock:
            self._families[name] = pb_utils.MetricFamily(name=name, description=description, kind=kind)
            if counter:
                self._counters.add(name)

    def change(self, name: str, value: float, **labels: str) -> None:
        """Add to a declared counter, or set a gauge."""
        key = (name, tuple(sorted(labels.items())))
        with self._lock:
            if key not in self._declared:
                self._declared[key] = self._families[name].Metric(labels={**self._labels, **labels})
            metric = self._declared[key]
            if name in self._counters:
                metric.increment(value)
            else:
                metric.set(value)
