"""The model `heartmula` makes songs together, and its metrics say so."""

from __future__ import annotations

import json

import numpy as np

from heartvoice.contracts.models import HEARTMULA
from heartvoice.server.server import EmbeddedServer
from tests.fakes.networks import text
from tests.support.raw import Metrics, Raw, outputs

SECONDS = 8.0
SONG = {
    "lyrics": text("la la la"),
    "duration_s": np.array([SECONDS], np.float32),
    "min_duration_s": np.array([SECONDS], np.float32),
}
N_SLOTS = int(HEARTMULA.parameters["max_jobs"])


def test_songs_are_batched_and_counted(server: EmbeddedServer, metrics: Metrics) -> None:
    names = ("frames_total", "lm_step_seconds_count", "lm_prefill_seconds_count", "lm_queue_seconds_count")
    before = {name: metrics.value(f"heartvoice_{name}") for name in names}
    with Raw(server.url) as raw:
        calls = [raw.call("heartmula", SONG | {"seed": np.array([seed])}) for seed in range(N_SLOTS)]
        last = [[outputs(message.infer_response) for message in call][-1] for call in calls]
    reports = [json.loads(response["REPORT"][0]) for response in last]
    assert [report["frames"] for report in reports] == [100] * N_SLOTS
    frames, steps, prompts, queued = (metrics.value(f"heartvoice_{name}") - before[name] for name in names)
    assert (frames, prompts, queued) == (100 * N_SLOTS, N_SLOTS, N_SLOTS)
    assert steps < 0.9 * frames, "no frame was made for several songs"
    assert metrics.value("heartvoice_lm_slots_busy") == metrics.value("heartvoice_lm_rows_busy") == 0
    for what in ("step", "prefill", "queue", "first_frame"):
        name = f"heartvoice_lm_{what}_seconds"
        assert metrics.value(f"{name}_bucket", le="+Inf") == metrics.value(f"{name}_count") > 0
        assert metrics.value(f"{name}_sum") > 0
