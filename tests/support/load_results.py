"""A load test's result with a row or two of every kind, as `heartvoice bench` writes them."""

from __future__ import annotations

from typing import Any

PERCENTILES = {"p50_ms": 1000.0, "p90_ms": 1500.0, "p95_ms": 2000.0, "p99_ms": 2500.0}


def _stage(name: str, at_once: int, **facts: Any) -> dict[str, Any]:
    return {
        "case": f"stage: {name}", "variant": f"concurrency {at_once}", "question": "stages", "concurrency": at_once,
        "n": 8, **PERCENTILES, "rtf": 0.25, "audio_s_per_s": 4.0, "queue_ms": 12.0,
        "inner_queues_ms": {"svc": 210.0, "demucs": 2.0}, **facts,
    }  # fmt: skip


def _point(share: float, done: int, n: int, power: float) -> dict[str, Any]:
    return {
        "case": "saturation", "variant": f"{share:.0%} offered", "question": "saturation", "n": n, "share": share,
        "offered_per_s": 2 * share, "done_per_s": 1.5, **PERCENTILES, "power": power, "done": done, "refused": n - done,
        "late": 0, "broken": 0, "queue_ms": 300.0,
    }  # fmt: skip


def result(*, contended: bool = False) -> dict[str, Any]:
    """Make a result with all kinds of rows."""
    stream = {
        "case": "stream: song, window 93", "variant": "concurrency 2", "question": "streams", "concurrency": 2, "n": 4,
        **PERCENTILES, "ttfa_p50_ms": 400.0, "ttfa_p95_ms": 500.0, "gap_p50_ms": 20.0, "gap_p95_ms": 40.0,
        "gap_max_ms": 45.0, "jobs_with_underruns": 1, "done": 4, "silence_s": 0.25, "buffer_s": 0.75,
        "songs_per_hour": 3600.0,
    }  # fmt: skip
    lengths = [
        {"case": "length: song", "variant": f"{seconds:g} s", "question": "length", "seconds": seconds, "n": 2,
         "ms_per_s": 40.0, "lm_ms_per_s": 30.0, "codec_ms_per_s": 20.0}
        for seconds in (10.0, 240.0)
    ]  # fmt: skip
    shared = [
        {"case": "shared memory: cover of 60 s", "variant": variant, "question": "shared", "n": 2, "input_mb": 23.04,
         **PERCENTILES, "ratio": ratio}
        for variant, ratio in (("gRPC", 1.0), ("shared memory", 0.97))
    ]  # fmt: skip
    memory = [
        {"case": "memory", "variant": name, "question": "memory", "first_mb": 50.0, "most_mb": 400.0}
        for name in ("server", "svc", "all")
    ]  # fmt: skip
    failed = {"case": "stage: cover", "variant": "concurrency 8", "question": "stages", "failed": "no\nmore"}
    return {
        "preset": "tiny", "contended": contended, "machine": {"cores": 2}, "complete": True,
        "saturation": {"knee_per_s": 1.2, "sustained_per_s": 2.0},
        "rows": [
            _stage("svc", 1), _stage("svc", 8), _stage("song", 1, songs_per_hour=3000.0), failed, stream,
            {"case": "saturation", "variant": "capacity", "question": "saturation", "n": 8, "capacity_per_s": 2.0},
            _point(0.6, 10, 10, 1.5), _point(2.0, 30, 40, 0.5), *lengths, *shared, *memory,
        ],
    }  # fmt: skip
