"""Measures whether a second of a long song costs more than one of a short song.

Songs and covers of increasing length run one at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from heartvoice.loadtest.clients import Make, PlaybackStats, closed_loop, done, errors
from heartvoice.loadtest.harness import Run
from heartvoice.loadtest.streams import cover, song
from heartvoice.loadtest.target import Target
from heartvoice.loadtest.view import Step

STAGES = ("lm_s", "codec_s", "separation_s", "conversion_s", "mix_s", "judging_s")
"""Timings of a report; stages overlap, so their sum exceeds the total."""


def measure_length(
    run: Run, target: Target, *, lengths: Sequence[float], cover_lengths: Sequence[float], rounds: int
) -> Iterator[Step]:
    """Measure all lengths alternately, in rounds; yields before each point."""
    jobs: dict[tuple[str, float], Make] = {("song", s): song(s) for s in lengths}
    jobs |= {("cover", seconds): cover(seconds) for seconds in cover_lengths}
    stats: dict[tuple[str, float], list[PlaybackStats]] = {job: [] for job in jobs}
    rss: dict[tuple[str, float], float] = {}
    for kind in dict.fromkeys(kind for kind, _ in jobs):
        yield Step(f"{kind}, one that does not count", 0)
        with target.client() as client:
            closed_loop(client, next(make for (name, _), make in jobs.items() if name == kind), 1, 1)
    for _ in range(rounds):
        for job, make in jobs.items():
            yield Step(f"{job[0]} of {job[1]:g} s")
            with target.watch() as server_stats, target.client() as client:
                stats[job] += closed_loop(client, make, 1, 1)
            rss[job] = sum(server_stats.rss.values()) / 1e6
    for (kind, seconds), made in stats.items():
        _add(run, kind, seconds, made, rss[kind, seconds])
    run.save()


def _add(run: Run, kind: str, seconds: float, stats: Sequence[PlaybackStats], rss_mb: float) -> None:
    finished = done(stats)
    if not finished:
        run.add(f"length: {kind}", f"{seconds:g} s", failed="; ".join(errors(stats)), question="length")
        return
    per_s: dict[str, Any] = {
        f"{name.removesuffix('_s')}_ms_per_s": 1e3
        * float(np.median([each.timings[name] for each in finished]))
        / seconds
        for name in STAGES
        if name in finished[0].timings
    }
    total_ms = 1e3 * float(np.median([each.total_s for each in finished]))
    run.add(
        f"length: {kind}", f"{seconds:g} s", question="length", seconds=seconds, n=len(finished),
        total_ms=total_ms, ms_per_s=total_ms / seconds, **per_s, rss_mb=rss_mb,
    )  # fmt: skip
