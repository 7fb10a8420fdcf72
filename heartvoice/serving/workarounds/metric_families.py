"""Custom metrics behind one lock, with families that live as long as their metrics.

Fault (Triton 2.51): custom metrics are not thread-safe, and the server crashes (SIGSEGV). A metric is deleted together
    with its `MetricFamily` object.
Does: keeps the families, and makes every update under one lock.
Test: `test_metrics_are_updated_by_one_thread_at_a_time`
Delete when: Triton's Python backend locks metrics and a metric keeps its family.
"""

from __future__ import annotations

import threading
from typing import Any

import triton_python_backend_utils as pb_utils


class MetricFamilies:
    """Counters and gauges of one process. Thread-safe."""

    def __init__(self, **labels: str) -> None:
        """Start without families; `labels` are set on every metric."""
        self._labels = labels
        self._lock = threading.Lock()
        self._families: dict[str, Any] = {}
        self._counters: set[str] = set()
        self._metrics: dict[tuple[str, tuple[tuple[str, str], ...]], Any] = {}

    def declare(self, name: str, description: str, *, counter: bool) -> None:
        """Add a family of counters or gauges."""
        kind = pb_utils.MetricFamily.COUNTER if counter else pb_utils.MetricFamily.GAUGE
        with self._lock:
            self._families[name] = pb_utils.MetricFamily(name=name, description=description, kind=kind)
            if counter:
                self._counters.add(name)

    def change(self, name: str, value: float, **labels: str) -> None:
        """Add to a counter, or set a gauge."""
        key = (name, tuple(sorted(labels.items())))
        with self._lock:
            if key not in self._metrics:
                self._metrics[key] = self._families[name].Metric(labels={**self._labels, **labels})
            metric = self._metrics[key]
            if name in self._counters:
                metric.increment(value)
            else:
                metric.set(value)
