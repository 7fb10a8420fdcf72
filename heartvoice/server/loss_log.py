"""Counts and logs the jobs that ended with their process, which cannot do so itself."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from heartvoice.serving.job_record import job_line
from heartvoice.serving.live_jobs import read_live
from heartvoice.serving.losses import Losses

log = logging.getLogger(__name__)
LOST = "LOST"
"""Outcome of such a job in the server's log."""


class LossLog:
    """The losses of one run."""

    def __init__(self, run: Path, server_log: IO[bytes]) -> None:
        self._run, self._server_log = run, server_log
        self.counts = Losses()

    def jobs(self, models: Sequence[str]) -> int:
        """Record the live jobs of processes that died; call it before they are started anew. Return their number."""
        total = 0
        for model in models:
            n_jobs, named = read_live(model, self._run)
            if n_jobs:
                self.counts.lost[model] = self.counts.lost.get(model, 0) + n_jobs
            total += n_jobs
            for request_id, began in named:
                line = job_line(request_id, model, LOST, max(0.0, time.time() - began))
                self._server_log.write(f"{json.dumps(line)}\n".encode())
        with contextlib.suppress(OSError):  # a full disk
            self._server_log.flush()
        self._write()
        return total

    def restarted(self, model: str) -> None:
        """Count a model's process that was started anew."""
        self.counts.restarts[model] = self.counts.restarts.get(model, 0) + 1
        self._write()

    def server_restarted(self) -> None:
        """Count a start of the server after it ended by itself."""
        self.counts.server_restarts += 1
        self._write()

    def _write(self) -> None:
        try:
            self.counts.write(self._run)
        except OSError as error:
            log.error("restarts and lost jobs are not in the metrics: %s", error)
