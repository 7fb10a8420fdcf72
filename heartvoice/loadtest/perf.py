"""Measures request latencies of each stage and job at several concurrencies, with perf_analyzer.

perf_analyzer comes from a PyPI wheel, pinned by hash: version 2.60 for glibc 2.38 or later, else (x86-64 only)
tritonclient 2.49.0's, for which two libraries are linked from the server's wheel. It accepts headers on its command
line only.
"""

from __future__ import annotations

import csv
import json
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heartvoice.errors import HeartvoiceError, ModelUnavailableError
from heartvoice.export import wheel_files
from heartvoice.loadtest.harness import Run
from heartvoice.loadtest.target import Target
from heartvoice.loadtest.view import Step
from heartvoice.loadtest.work import Load, as_json, message
from heartvoice.server import triton_wheel

LIBRARIES = {"libb64.so.0d": "libb64-*.so.0d", "libcudart.so.12": "libcudart-*.so.12*"}
TIMEOUT_S = 600.0
PERCENTILES = (50, 90, 95, 99)
OUTPUT_ROOM = 8
"""perf_analyzer's shared memory per output, as a multiple of the size of all inputs."""
LEAST = 4
"""Least number of requests of a point, unless the concurrency is larger."""


@dataclass(frozen=True)
class PerfAnalyzer:
    """The program and its environment."""

    program: Path
    environment: dict[str, str]
    version: str


def published_name(machine: str, glibc: tuple[int, ...]) -> str:
    """Return the name of the published perf_analyzer that runs on a machine.

    Raises:
        ModelUnavailableError: no published one does.
    """
    if glibc >= (2, 38) and machine in ("x86_64", "aarch64"):
        return f"perf-analyzer-{machine}"
    if machine == "x86_64":
        return "perf-analyzer-2.49"
    version = ".".join(map(str, glibc))
    raise ModelUnavailableError(f"perf_analyzer: PyPI has none for {machine} with glibc {version}; it needs 2.38")


@contextmanager
def perf_analyzer() -> Iterator[PerfAnalyzer]:
    """Download perf_analyzer, or take it from the cache.

    Raises:
        ExportError: the download failed.
        ModelUnavailableError: no published one runs on this machine.
    """
    glibc = tuple(int(part) for part in (platform.libc_ver()[1] or "0").split("."))
    name = published_name(platform.machine(), glibc)
    version = f"{wheel_files.MEMBERS[name].project} {wheel_files.MEMBERS[name].version}"
    with tempfile.TemporaryDirectory(prefix="heartvoice-perf-") as folder:
        program, environment = Path(folder) / "perf_analyzer", dict(os.environ)
        shutil.copyfile(wheel_files.member(name), program)
        program.chmod(0o755)
        if name == "perf-analyzer-2.49":
            libraries = triton_wheel.find_wheel().libraries
            if libraries is None:
                raise ModelUnavailableError("perf_analyzer: expected a server wheel with libraries, got none")
            for link, pattern in LIBRARIES.items():
                (Path(folder) / link).symlink_to(next(libraries.glob(pattern)))
            environment["LD_LIBRARY_PATH"] = folder
        yield PerfAnalyzer(program, environment, version)


@dataclass(frozen=True)
class Latencies:
    """perf_analyzer's latencies in ms, to the response or to a streamed model's last response."""

    percentiles: dict[str, Any]
    mean_ms: float

    @classmethod
    def read(cls, row: Mapping[str, str]) -> Latencies:
        """Read a row of perf_analyzer's verbose CSV."""
        percentiles = {f"p{q}_ms": float(row[f"p{q} latency"]) / 1e3 for q in PERCENTILES}
        return cls(percentiles, float(row["Avg latency"]) / 1e3)

    def rate_hz(self, concurrency: int) -> float:
        """Requests per second by Little's law: concurrency over mean latency.

        perf_analyzer's own rate is based on whole seconds, which is coarse for a short point.
        """
        return concurrency / (self.mean_ms / 1e3)


def measure(
    tool: PerfAnalyzer, target: Target, load: Load, concurrency: int, n: int, *, shared: bool = False
) -> Latencies | str:
    """Run perf_analyzer once; return its latencies, or its last message if it failed."""
    with tempfile.TemporaryDirectory(prefix="heartvoice-perf-") as folder:
        data, result = Path(folder) / "data.json", Path(folder) / "result.csv"
        inputs = load.inputs()
        data.write_text(json.dumps({"data": [as_json(inputs)]}), encoding="utf-8")
        headers = [f"{name}:{value}" for name, value in target.perf_headers(shared=shared)]
        room = OUTPUT_ROOM * sum(array.nbytes for array in inputs.values())
        command = [
            str(tool.program), "-m", load.model, "-u", target.url, "-i", "grpc", "--input-data", str(data),
            "--concurrency-range", str(concurrency), "--request-count", str(n), "-f", str(result), "--verbose-csv",
            *(["--streaming"] if load.streamed else []),
            *(["--shared-memory", "system", "--output-shared-memory-size", str(room)] if shared else []),
            *target.perf_security(),
            *(part for header in headers for part in ("-H", header)),
        ]  # fmt: skip
        try:
            done = subprocess.run(
                command, env=tool.environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            return f"perf_analyzer did not end within {TIMEOUT_S:g} s"
        if done.returncode or not result.is_file():
            said = (done.stdout + done.stderr).strip().splitlines()
            return said[-1] if said else f"perf_analyzer ended with {done.returncode}"
        with result.open(encoding="utf-8") as file:
            return Latencies.read(next(csv.DictReader(file)))


def n_requests(latency_s: float, concurrency: int, seconds: float, most: int) -> int:
    """Return how many requests take about `seconds`: at least `LEAST` and the concurrency, at most `most`."""
    fitting = int(seconds / max(latency_s, 1e-3))
    return max(LEAST, concurrency, min(fitting, most))


def measure_stages(
    run: Run,
    target: Target,
    tool: PerfAnalyzer,
    loads: Sequence[Load],
    *,
    concurrency: Sequence[int],
    seconds: float,
    most: int,
) -> Iterator[Step]:
    """Measure every load at every concurrency; yields before each point."""
    for load in loads:
        yield Step(f"{load.name}, one request that does not count", 0)
        try:  # warm up: voice features are cached, memory is allocated
            latency_s = [target.ask(message(load), streamed=load.streamed) for _ in range(2)][-1]
        except HeartvoiceError as error:
            run.add(f"stage: {load.name}", "first request", failed=str(error), question="stages")
            continue
        for at_once in concurrency:
            n = n_requests(latency_s, at_once, seconds, most)
            yield Step(f"{load.name}, {at_once} at once, {n} requests")
            with target.watch() as server_stats:
                found = measure(tool, target, load, at_once, n)
            if isinstance(found, str):
                run.add(f"stage: {load.name}", f"concurrency {at_once}", failed=found, question="stages")
            else:
                _add(run, load, at_once, n, found, server_stats.facts(load.model))
            run.save()


def _add(run: Run, load: Load, at_once: int, n: int, found: Latencies, server_stats: dict[str, Any]) -> None:
    """Add one row to the result."""
    rate = found.rate_hz(at_once)
    hourly: dict[str, Any] = {"songs_per_hour": rate * 3600} if load.model in ("song", "cover") else {}
    facts: dict[str, Any] = {**found.percentiles, "mean_ms": found.mean_ms, **hourly, **server_stats}
    run.add(
        f"stage: {load.name}", f"concurrency {at_once}", question="stages", model=load.model, concurrency=at_once, n=n,
        requests_per_s=rate, audio_s_per_s=rate * load.audio_s, rtf=1 / (rate * load.audio_s), **facts,
    )  # fmt: skip
