"""What is known of a job at its end, and what a dead process leaves of its jobs."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from heartvoice.contracts.models import COVER, DEMUCS, RENDER, SONG, SPEAKER_ENCODER, SVC
from heartvoice.contracts.types import ModelSpec
from heartvoice.server.loss_log import LossLog
from heartvoice.serving.histograms import Histogram
from heartvoice.serving.job_record import JobRecord, payload_of
from heartvoice.serving.live_jobs import LiveJobs, read_live
from heartvoice.serving.losses import read_losses

REPORT = json.dumps({"timings": {"lm_s": 1.5, "codec_s": 0.25, "rtf": None}, "seed": 7, "voice_consent": "me"})


def test_a_job_is_described_by_times_and_amounts_alone() -> None:
    record = JobRecord(SONG, "my-song")
    record.started()
    record.sent({"AUDIO": np.zeros((2, 48_000), np.float32), "START": np.array([0])})
    record.sent({"STEMS": np.zeros((2, 2, 96_000), np.float32), "START": np.array([0])})
    record.sent({"AUDIO": np.zeros((2, 24_000), np.float32), "START": np.array([48_000])})
    record.sent({"REPORT": REPORT})
    facts = json.loads(json.dumps(record.facts("ok")))
    assert set(facts) == {"time", "id", "model", "outcome", "seconds", "queue", "first_audio", "audio", "stages"}
    assert (facts["id"], facts["model"], facts["outcome"]) == ("my-song", "song", "ok")
    assert facts["audio"] == 1.5
    assert facts["stages"] == {"lm_s": 1.5, "codec_s": 0.25}
    assert record.first_audio_s is not None
    assert record.rtf is not None
    assert record.rtf < record.seconds


def test_the_line_of_a_marked_song_has_its_payload() -> None:
    record = JobRecord(SONG, "my-song")
    record.sent({"REPORT": json.dumps({"watermark": {"on": True, "alg": "a", "payload": "00c0ffee"}})})
    assert record.facts("ok")["watermark"] == "00c0ffee"
    record.sent({"REPORT": json.dumps({"watermark": {"on": False}})})
    assert "watermark" not in record.facts("ok")


PRIVATE = "the words of a song, who agreed, and secret-name.wav"


@pytest.mark.parametrize("spec", [SONG, COVER, RENDER, DEMUCS, SVC, SPEAKER_ENCODER], ids=lambda spec: spec.name)
@pytest.mark.parametrize("outcome", ["ok", "INVALID_ARG", "CANCELLED"])
def test_the_line_of_no_job_holds_what_the_caller_sent_or_got(spec: ModelSpec, outcome: str) -> None:
    record = JobRecord(spec, "id")
    record.started()
    report = {
        "lyrics": PRIVATE, "tags": PRIVATE, "voice_consent": PRIVATE, "warnings": [PRIVATE], "preset": PRIVATE,
        "timings": {"lm_s": PRIVATE, "mix_s": 0.5}, "sample_rate_hz": 48_000, "samples": 480,
    }  # fmt: skip
    for tensor in spec.outputs:
        record.sent({tensor.name: json.dumps(report) if tensor.name == "REPORT" else PRIVATE})
    facts = record.facts(outcome)
    assert PRIVATE not in json.dumps(facts)
    assert facts["stages"] == ({"mix_s": 0.5} if any(tensor.name == "REPORT" for tensor in spec.outputs) else {})
    texts = {name: value for name, value in facts.items() if isinstance(value, str) and name != "time"}
    assert texts == {"id": "id", "model": spec.name, "outcome": outcome}


def test_a_job_that_ends_with_a_file_has_audio_by_its_report() -> None:
    record = JobRecord(RENDER, "r" * 1000)
    record.sent({"FILE": b"RIFF", "REPORT": json.dumps({"samples": 96_000, "sample_rate_hz": 48_000})})
    assert (record.audio_s, record.first_audio_s, len(record.request_id)) == (2.0, None, 128)


@pytest.mark.parametrize(
    ("model", "payload"), [(SONG, "AUDIO"), (COVER, "AUDIO"), (DEMUCS, "STEMS"), (SVC, "VOCALS"),
                           (SPEAKER_ENCODER, None)]
)  # fmt: skip
def test_each_models_audio_is_known(model: object, payload: str | None) -> None:
    assert payload_of(model) == payload  # type: ignore[arg-type]


def test_a_histogram_counts_up_to_each_bound() -> None:
    class Page(Counter[str]):
        def change(self, name: str, value: float, **labels: str) -> None:
            self[name + labels.get("le", "")] += value  # type: ignore[assignment]

    page, histogram = Page(), Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 9.0):
        histogram.add(value)
    histogram.report(page, "x")
    histogram.report(page, "x")
    assert page == {"x_bucket1.0": 2, "x_bucket2.0": 3, "x_bucket+Inf": 4, "x_sum": 12.0, "x_count": 4}


def test_jobs_of_a_dead_process_are_counted_and_named(tmp_path: Path) -> None:
    LiveJobs("song", tmp_path).set(3, [("a", 1000.0), ("b", 2000.0)])
    LiveJobs("svc", tmp_path).set(2, [])
    log = io.BytesIO()
    losses = LossLog(tmp_path, log)
    assert losses.jobs(["song", "svc", "cover"]) == 5
    losses.restarted("song")
    losses.jobs(["song"])
    losses.restarted("song")
    losses.server_restarted()
    kept = read_losses(tmp_path)
    assert (kept.lost, kept.restarts, kept.server_restarts) == ({"song": 6, "svc": 2}, {"song": 2}, 1)
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [(line["id"], line["model"], line["outcome"]) for line in lines[:2]] == [
        ("a", "song", "LOST"), ("b", "song", "LOST"),
    ]  # fmt: skip


def test_a_new_process_has_no_jobs(tmp_path: Path) -> None:
    LiveJobs("song", tmp_path).set(1, [("a", 1.0)])
    assert read_live("song", tmp_path) == (1, [("a", 1.0)])
    LiveJobs("song", tmp_path)
    assert read_live("song", tmp_path) == (0, [])
    assert read_live("cover", tmp_path) == (0, [])


def test_more_names_than_there_is_room_for_are_counted(tmp_path: Path) -> None:
    LiveJobs("song", tmp_path).set(2000, [("x" * 128, 1.0)] * 2000)
    assert read_live("song", tmp_path) == (2000, [])
