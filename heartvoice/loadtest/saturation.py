"""Measures a server's capacity: songs at random times, up to twice its throughput, and the knee.

The knee is the load with the greatest power, which is songs per second over their median time (Kleinrock 1979). Below
it additional load adds little waiting; above it waiting grows faster than throughput. `sustained` is the largest load
up to which no song was refused.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from heartvoice.contracts.models import SONG
from heartvoice.loadtest.clients import (
    TIMEOUT_S,
    Make,
    PlaybackStats,
    closed_loop,
    counts,
    done,
    errors,
    open_loop,
    percentiles,
)
from heartvoice.loadtest.harness import Run
from heartvoice.loadtest.target import Target
from heartvoice.loadtest.view import Step

CASE = "saturation"


def measure_saturation(
    run: Run, target: Target, make: Make, *, seconds: float, shares: Sequence[float], most: int
) -> Iterator[Step]:
    """Measure the throughput at full occupancy, then each share of it; yields before each point."""
    places = int(SONG.parameters["max_jobs"])
    yield Step(f"capacity, {places} songs at once", 0)
    with target.client() as client:
        closed_loop(client, make, places, places)
        began, count = time.perf_counter(), 0
        while count == 0 or (time.perf_counter() - began < seconds / 2 and count < most):
            count += len(done(closed_loop(client, make, places, 2 * places)))
            if not count:
                run.add(CASE, "capacity", failed="no song was finished", question="saturation")
                return
        capacity_hz = count / (time.perf_counter() - began)
    run.add(CASE, "capacity", question="saturation", n=count, capacity_per_s=capacity_hz)
    points = []
    for index, share in enumerate(shares):
        rate_hz = share * capacity_hz
        yield Step(f"{share:.0%} of capacity, {rate_hz:.2f} songs a second offered")
        with target.watch() as server_stats, target.client(timeout_s=TIMEOUT_S) as client:
            began = time.perf_counter()
            stats = open_loop(client, make, rate_hz, seconds, index)
            wall_s = time.perf_counter() - began
        points.append(
            _add(run, share, rate_hz, stats, wall_s, server_stats.facts("song") | {"refused_by": server_stats.refused})
        )
        run.save()
    run.about |= {"saturation": summary(points)}


def _add(
    run: Run, share: float, rate_hz: float, stats: Sequence[PlaybackStats], wall_s: float, server_stats: dict[str, Any]
) -> dict[str, Any]:
    finished = done(stats)
    rate = len(finished) / wall_s
    times = percentiles("", [each.total_s for each in finished])
    return run.add(
        CASE, f"{share:.0%} offered", question="saturation", n=len(stats), offered_per_s=rate_hz, share=share,
        done_per_s=rate, **times, **percentiles("ttfa_", [each.first_s for each in finished], (50, 95)),
        power=rate / (times["p50_ms"] / 1e3) if times else 0.0,
        **counts(stats), errors=errors(stats), refusals=sorted({e.error for e in stats if e.outcome == "refused"}),
        **server_stats,
    )  # fmt: skip


def summary(points: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """Return knee and sustained load of ascending points, in songs per second; None if absent."""
    if not points:
        return {"knee_per_s": None, "sustained_per_s": None}
    knee = max(points, key=lambda point: float(point["power"]))
    sustained = None
    for point in points:
        if point["done"] < point["n"]:
            break
        sustained = point["offered_per_s"]
    return {"knee_per_s": knee["offered_per_s"], "sustained_per_s": sustained}
