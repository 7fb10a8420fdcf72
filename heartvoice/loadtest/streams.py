"""Measures concurrent streams: first audio, gaps between chunks, and underruns of a player."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from heartvoice.contracts.constants import CODES_PER_UNIT
from heartvoice.loadtest import work as load_work
from heartvoice.loadtest.clients import Make, PlaybackStats, closed_loop, counts, done, errors, percentiles
from heartvoice.loadtest.harness import Run
from heartvoice.loadtest.perf import n_requests
from heartvoice.loadtest.target import Target
from heartvoice.loadtest.view import Step


@dataclass(frozen=True)
class Job:
    """A streamed job and its name."""

    name: str
    make: Make


def song(seconds: float, *, voice: bool = False, **settings: Any) -> Make:
    """Return a job that makes a song of exactly this length, optionally live in another voice."""
    chosen: dict[str, Any] = {
        "duration_s": seconds, "min_duration_s": seconds, "codec_steps": load_work.FLOW_STEPS,
        **({"svc_steps": load_work.FLOW_STEPS, "live": True} if voice else {}), **settings,
    }  # fmt: skip
    if voice:
        chosen |= {"voice": load_work.reference(), "consent": load_work.CONSENT, "no_vocals": "convert"}
    return lambda client: client.stream(load_work.LYRICS, load_work.TAGS, **chosen)


def cover(seconds: float, **settings: Any) -> Make:
    """Return a job that makes a cover of a recording of this length."""
    recording, voice = load_work.recording(seconds), load_work.reference()
    chosen = {"svc_steps": load_work.FLOW_STEPS, **settings}
    return lambda client: client.stream_cover(
        recording, voice, consent=load_work.CONSENT, no_vocals="convert", **chosen
    )


def jobs(seconds: float) -> list[Job]:
    """Return the measured jobs."""
    early: dict[str, Any] = {"codec_window": CODES_PER_UNIT}
    return [
        Job("song, window 93", song(seconds, **early)),
        Job("song, window 372", song(seconds)),
        Job("song, voice, live, window 93", song(seconds, voice=True, **early)),
        Job("cover, live", cover(seconds, live=True)),
    ]


def measure_streams(
    run: Run, target: Target, wanted: Sequence[Job], *, concurrency: Sequence[int], seconds: float, most: int
) -> Iterator[Step]:
    """Measure every job at every concurrency; yields before each point."""
    for job in wanted:
        yield Step(f"{job.name}, once", 0)
        with target.client() as client:
            first = closed_loop(client, job.make, 1, 1)[0]
        for at_once in concurrency:
            n = n_requests(first.total_s, at_once, seconds, most)
            yield Step(f"{job.name}, {at_once} at once, {n} jobs")
            with target.watch() as server_stats, target.client() as client:
                began = time.perf_counter()
                stats = closed_loop(client, job.make, at_once, n)
                wall_s = time.perf_counter() - began
            add(run, job.name, at_once, stats, wall_s, server_stats.facts(""))
            run.save()


def add(
    run: Run, name: str, at_once: int, stats: Sequence[PlaybackStats], wall_s: float, server_stats: dict[str, Any]
) -> None:
    """Add one row. The last gap of a stream counts; a job of one chunk has none."""
    finished = done(stats)
    if not finished:
        run.add(f"stream: {name}", f"concurrency {at_once}", failed="; ".join(errors(stats)), question="streams")
        return
    played = [each.playback for each in finished]
    gaps = [gap for each in finished for gap in each.gaps_s]
    audio_s = sum(each.audio_s for each in finished)
    run.add(
        f"stream: {name}", f"concurrency {at_once}", question="streams", concurrency=at_once, n=len(stats),
        **percentiles("", [each.total_s for each in finished]),
        **percentiles("ttfa_", [each.first_s for each in finished], (50, 95)),
        **percentiles("gap_", gaps, (50, 95)), gap_max_ms=1e3 * max(gaps, default=0.0),
        underruns=sum(each.underruns for each in played),
        jobs_with_underruns=sum(each.underruns > 0 for each in played),
        silence_s=float(np.mean([each.silence_s for each in played])),
        buffer_s=max(each.buffer_s for each in played), rtf=wall_s / audio_s,
        songs_per_hour=3600 * len(finished) / wall_s, **counts(stats), errors=errors(stats), **server_stats,
    )  # fmt: skip
