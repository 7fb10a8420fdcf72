"""Measures what shared memory saves for large inputs, with perf_analyzer and with this client."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from heartvoice import keyed_random
from heartvoice.client import Client
from heartvoice.contracts.constants import SAMPLE_RATE_HZ
from heartvoice.errors import HeartvoiceError
from heartvoice.loadtest import work as load_work
from heartvoice.loadtest.harness import Run, alternate
from heartvoice.loadtest.perf import PerfAnalyzer, measure
from heartvoice.loadtest.target import Target
from heartvoice.loadtest.view import Step
from heartvoice.loadtest.work import Load

GRPC, SHARED = "gRPC", "shared memory"
CASE = "shared memory"


def measure_shared(
    run: Run, target: Target, tool: PerfAnalyzer | None, graph: Load, *, seconds: float, rounds: int, n: int
) -> Iterator[Step]:
    """Measure two requests of this client and one of perf_analyzer; yields before each point."""
    if tool is not None:
        yield Step(f"{graph.name} by perf_analyzer, {n} requests either way")
        size = sum(array.nbytes for array in graph.inputs().values()) / 1e6
        for variant in (GRPC, SHARED):
            found = measure(tool, target, graph, 1, n, shared=variant == SHARED)
            facts: dict[str, Any] = {"question": "shared", "input_mb": size}
            if isinstance(found, str):
                run.add(f"{CASE}: {graph.name}", variant, failed=found, **facts)
            else:
                run.add(f"{CASE}: {graph.name}", variant, n=n, **found.percentiles, **facts)
        run.save()
    audio = (0.1 * keyed_random.normal(5, "load", 0, (2, round(seconds * SAMPLE_RATE_HZ)))).astype(np.float32)
    recording, voice = (audio, SAMPLE_RATE_HZ), load_work.reference()
    calls: dict[str, Callable[[Client], object]] = {
        "speaker_encoder": lambda client: client.embed(recording),
        "cover": lambda client: client.cover(
            recording, voice, consent=load_work.CONSENT, no_vocals="convert", svc_steps=load_work.FLOW_STEPS
        ),
    }
    yield Step(f"requests of {seconds:g} s of samples, either way", 0)
    try:
        with target.client() as plain, target.client(shared_memory=True) as sharing:
            calls["speaker_encoder"](sharing)  # raises if the server refuses shared memory
            for name, call in calls.items():
                yield Step(f"{name} of {seconds:g} s of samples, either way")
                n_rounds = rounds if name == "cover" else 5 * rounds
                timings = alternate(
                    {GRPC: partial(call, plain), SHARED: partial(call, sharing)},
                    n=n_rounds,
                    warmup=int(name != "cover"),
                )
                for variant, timing in timings.items():
                    run.add(
                        f"{CASE}: {name} of {seconds:g} s", variant, timing, baseline=timings[GRPC], question="shared",
                        input_mb=audio.nbytes / 1e6, p90_ms=float(np.percentile(timing.seconds, 90)) * 1e3,
                    )  # fmt: skip
                run.save()
    except HeartvoiceError as error:
        run.add(f"{CASE}: our client", SHARED, failed=str(error), question="shared")
