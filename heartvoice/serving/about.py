"""The model `heartvoice`: what this server is, and how often its processes were started anew."""

from __future__ import annotations

import json
import threading
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from heartvoice.contracts.about import FACTS, NAMES
from heartvoice.serving import logs, process_registry
from heartvoice.serving.losses import Losses, read_losses
from heartvoice.serving.workarounds import quick_exit
from heartvoice.serving.workarounds.metric_families import MetricFamilies

POLL_S = 0.5
_RESTARTS, _LOST = "heartvoice_restarts_total", "heartvoice_jobs_lost_total"
_SERVER_RESTARTS = "heartvoice_server_restarts_total"


class AboutModel:
    """The model class that the Python backend calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the facts from the configuration, and follow what the supervisor counts."""
        logs.configure()
        quick_exit.arrange()
        parameters = json.loads(args["model_config"])["parameters"]
        facts: dict[str, Any] = {name: parameters[name]["string_value"] for name in NAMES}
        facts["random_weights"] = facts["random_weights"] == "true"
        self._facts = json.dumps(facts).encode()
        self._stopped = threading.Event()
        # Declared in this thread: what another one sends while a model loads could come too early for the server.
        self._run, self._metrics = process_registry.folder(), MetricFamilies()
        self._shown = Losses() if self._run is None else read_losses(self._run)
        self._declare(json.loads(parameters["models"]["string_value"]))
        threading.Thread(target=self._follow, name="losses", daemon=True).start()

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request with the facts, which are in the configuration, too."""
        facts = np.array([self._facts], np.object_)
        return [pb_utils.InferenceResponse(output_tensors=[pb_utils.Tensor(FACTS, facts)]) for _ in requests]

    def finalize(self) -> None:
        """End the metrics: one that is sent while the server stops would block this process."""
        self._stopped.set()

    def _declare(self, models: list[str]) -> None:
        metrics, shown = self._metrics, self._shown
        metrics.declare(_RESTARTS, "Processes of models that were started anew", counter=True)
        metrics.declare(_LOST, "Jobs that ended with their process, calls of other models included", counter=True)
        metrics.declare(_SERVER_RESTARTS, "Starts of the server itself after a crash or a hang", counter=True)
        for model in models:  # the whole counts at once: a scrape in between would count them twice
            metrics.change(_RESTARTS, shown.restarts.get(model, 0), model=model)
            metrics.change(_LOST, shown.lost.get(model, 0), model=model)
        metrics.change(_SERVER_RESTARTS, shown.server_restarts)

    def _follow(self) -> None:
        metrics, shown, run = self._metrics, self._shown, self._run
        while run is not None and not self._stopped.wait(POLL_S):
            now = read_losses(run)
            for name, before, after in (
                (_RESTARTS, shown.restarts, now.restarts),
                (_LOST, shown.lost, now.lost),
            ):
                for model, count in after.items():
                    if count > before.get(model, 0):
                        metrics.change(name, count - before.get(model, 0), model=model)
            if now.server_restarts > shown.server_restarts:
                metrics.change(_SERVER_RESTARTS, now.server_restarts - shown.server_restarts)
            shown = now
