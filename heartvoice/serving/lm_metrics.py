"""Metrics of the song scheduler, on the server's /metrics."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, get_args

from heartvoice.serving.histograms import Histogram
from heartvoice.stages.lm.scheduler import Timed

if TYPE_CHECKING:  # needs Triton's Python backend, which tests do not have
    from heartvoice.serving.metrics import Metrics

SETTLE_S = 0.5
"""Seconds between reports while songs are in progress; each metric is a message to the server."""
BOUNDS_S = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0)
_DESCRIPTIONS = {
    "queue": "From request to slot",
    "first_frame": "From request to first frame",
    "prefill": "One prompt",
    "step": "One frame of all songs",
}


class LmMetrics:
    """An `LmObserver` that reports to the server from time to time."""

    def __init__(self, metrics: Metrics) -> None:
        """Declare all metrics, so that events that have not happened yet read 0."""
        self._metrics = metrics
        self._frames = 0
        self._settled = time.monotonic()
        self._histograms: dict[Timed, Histogram] = {what: Histogram(BOUNDS_S) for what in get_args(Timed)}
        self._gauges = {"slots_busy": 0, "rows_busy": 0, "songs_waiting": 0}
        self._reported: dict[str, int] = {}
        metrics.declare("heartvoice_lm_slots_busy", "Songs that have a slot", counter=False)
        metrics.declare("heartvoice_lm_rows_busy", "Rows of the batch: two for a guided song", counter=False)
        metrics.declare("heartvoice_lm_songs_waiting", "Songs that wait for a slot", counter=False)
        for what, suffix in itertools.product(self._histograms, ("bucket", "sum", "count")):
            description = f"{_DESCRIPTIONS[what]}, seconds (histogram: {suffix})"
            metrics.declare(f"heartvoice_lm_{what}_seconds_{suffix}", description, counter=True)
        self.flush(immediate=True)

    def timed(self, what: Timed, seconds: float) -> None:
        """Record a duration."""
        self._histograms[what].add(seconds)

    def frames_made(self, count: int) -> None:
        """Record frames."""
        self._frames += count

    def occupied(self, *, slots: int, rows: int, waiting: int) -> None:
        """Record the engine's load."""
        self._gauges = {"slots_busy": slots, "rows_busy": rows, "songs_waiting": waiting}

    def flush(self, *, immediate: bool) -> None:
        """Report if a report is due. It is due at the end of a song: no metric may be sent while the server stops."""
        now = time.monotonic()
        if not immediate and now - self._settled < SETTLE_S:
            return
        self._settled = now
        for name, value in self._gauges.items():
            if self._reported.get(name) != value:
                self._metrics.change(f"heartvoice_lm_{name}", value)
        self._reported = dict(self._gauges)
        if self._frames:
            self._metrics.frames_made(self._frames)
            self._frames = 0
        for what, histogram in self._histograms.items():
            histogram.report(self._metrics, f"heartvoice_lm_{what}_seconds")
