"""How long do a model's requests take, one at a time and several? perf_analyzer against each stage and each job.

It comes out of a PyPI wheel, pinned by hash: 2.60 where glibc is 2.38 or later, else (x86-64 alone) tritonclient
2.49.0's, for which two libraries are linked from the server's wheel. Headers it takes on its command line only.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heartvoice.benchmarks.harness import Run
from heartvoice.benchmarks.load_clients import percentiles
from heartvoice.benchmarks.load_target import Target
from heartvoice.benchmarks.load_view import Step
from heartvoice.benchmarks.load_work import Load, as_json, message
from heartvoice.embedded import wheel
from heartvoice.errors import HeartvoiceError, ModelUnavailableError
from heartvoice.export import pypi

LIBRARIES = {"libb64.so.0d": "libb64-*.so.0d", "libcudart.so.12": "libcudart-*.so.12*"}
TIMEOUT_S = 600.0
_REQUEST = re.compile(rb'"timestamp":(\d+),.*?"response_timestamps":\[([\d,]+)\]', re.DOTALL)
OUTPUT_ROOM = 8
"""perf_analyzer's shared memory for each output, of the size of all inputs."""
LEAST = 4
"""Requests of a point, or as many as go at once."""


@dataclass(frozen=True)
class PerfAnalyzer:
    """The program and the environment that it runs in."""

    program: Path
    environment: dict[str, str]
    version: str


def published_name(machine: str, glibc: tuple[int, ...]) -> str:
    """Which published perf_analyzer runs on a machine.

    Raises:
        ModelUnavailableError: none does.
    """
    if glibc >= (2, 38) and machine in ("x86_64", "aarch64"):
        return f"perf-analyzer-{machine}"
    if machine == "x86_64":
        return "perf-analyzer-2.49"
    version = ".".join(map(str, glibc))
    raise ModelUnavailableError(f"perf_analyzer: PyPI has none for {machine} with glibc {version}; it needs 2.38")


@contextmanager
def perf_analyzer() -> Iterator[PerfAnalyzer]:
    """Fetch it, or take it from the cache.

    Raises:
        ExportError: it cannot be fetched.
        ModelUnavailableError: there is none for this machine.
    """
    glibc = tuple(int(part) for part in (platform.libc_ver()[1] or "0").split("."))
    name = published_name(platform.machine(), glibc)
    version = f"{pypi.MEMBERS[name].project} {pypi.MEMBERS[name].version}"
    with tempfile.TemporaryDirectory(prefix="heartvoice-perf-") as folder:
        program, environment = Path(folder) / "perf_analyzer", dict(os.environ)
        shutil.copyfile(pypi.member(name), program)
        program.chmod(0o755)
        if name == "perf-analyzer-2.49":
            libraries = wheel.find_wheel().libraries
            assert libraries is not None, "find_wheel names the wheel's own"
            for link, pattern in LIBRARIES.items():
                (Path(folder) / link).symlink_to(next(libraries.glob(pattern)))
            environment["LD_LIBRARY_PATH"] = folder
        yield PerfAnalyzer(program, environment, version)


@dataclass(frozen=True)
class Sent:
    """perf_analyzer's requests, in seconds since the first was sent."""

    sent: tuple[float, ...]
    answered: tuple[tuple[float, ...], ...]
    """When each response of each request came."""

    @classmethod
    def read(cls, profile: bytes) -> Sent:
        """Out of a profile export, which is no JSON: it has what was sent and answered as it is, bytes and all.

        perf_analyzer's own rate counts whole seconds, which is coarse for a short point.
        """
        found = [(int(at), [int(each) for each in answers.split(b",")]) for at, answers in _REQUEST.findall(profile)]
        begin = min((at for at, _ in found), default=0)
        return cls(
            tuple((at - begin) / 1e9 for at, _ in found),
            tuple(tuple((each - begin) / 1e9 for each in answers) for _, answers in found),
        )

    @property
    def rate_hz(self) -> float:
        """Requests in a second, from the first that was sent to the last answer."""
        return len(self.sent) / max(times[-1] for times in self.answered)

    def latencies(self, *, first: bool = False) -> list[float]:
        """Seconds to the last response of each, or to the first."""
        at = 0 if first else -1
        return [times[at] - sent for sent, times in zip(self.sent, self.answered, strict=True)]


def measure(
    tool: PerfAnalyzer, target: Target, load: Load, concurrency: int, n: int, *, shared: bool = False
) -> Sent | str:
    """Run perf_analyzer once; returns what it sent, or what it said when it failed."""
    with tempfile.TemporaryDirectory(prefix="heartvoice-perf-") as folder:
        data, result = Path(folder) / "data.json", Path(folder) / "profile.json"
        inputs = load.inputs()
        data.write_text(json.dumps({"data": [as_json(inputs)]}), encoding="utf-8")
        headers = [f"{name}:{value}" for name, value in target.perf_headers(shared=shared)]
        room = OUTPUT_ROOM * sum(array.nbytes for array in inputs.values())
        command = [
            str(tool.program), "-m", load.model, "-u", target.url, "-i", "grpc", "--input-data", str(data),
            "--concurrency-range", str(concurrency), "--request-count", str(n), "--profile-export-file", str(result),
            *(["--streaming"] if load.streamed else []),
            *(["--shared-memory", "system", "--output-shared-memory-size", str(room)] if shared else []),
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
        sent = Sent.read(result.read_bytes())
        return sent if len(sent.sent) >= n else f"perf_analyzer: expected {n} answered requests, got {len(sent.sent)}"


def n_requests(latency_s: float, concurrency: int, seconds: float, most: int) -> int:
    """How many requests take about so long: at least `LEAST` and one for each that goes at once, at most `most`."""
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
    """Every load at every concurrency; yields before each point."""
    for load in loads:
        yield Step(f"{load.name}, one request that does not count", 0)
        try:  # a voice is heard, memory is taken
            latency_s = [target.ask(message(load), streamed=load.streamed) for _ in range(2)][-1]
        except HeartvoiceError as error:
            run.add(f"stage: {load.name}", "first request", failed=str(error), question="stages")
            continue
        for at_once in concurrency:
            n = n_requests(latency_s, at_once, seconds, most)
            yield Step(f"{load.name}, {at_once} at once, {n} requests")
            with target.watch() as watched:
                sent = measure(tool, target, load, at_once, n)
            if isinstance(sent, str):
                run.add(f"stage: {load.name}", f"concurrency {at_once}", failed=sent, question="stages")
            else:
                _add(run, load, at_once, sent, watched.facts(load.model))
            run.save()


def _add(run: Run, load: Load, at_once: int, sent: Sent, watched: dict[str, Any]) -> None:
    """One row of the result. Latencies are to the last response of a streamed model."""
    rate = sent.rate_hz
    heard = percentiles("first_", sent.latencies(first=True), (50, 95)) if load.streamed else {}
    hourly: dict[str, Any] = {"songs_per_hour": rate * 3600} if load.model in ("song", "cover") else {}
    run.add(
        f"stage: {load.name}", f"concurrency {at_once}", question="stages", model=load.model, concurrency=at_once,
        n=len(sent.sent), **percentiles("", sent.latencies()), **heard, requests_per_s=rate,
        audio_s_per_s=rate * load.audio_s, rtf=1 / (rate * load.audio_s), **hourly, **watched,
    )  # fmt: skip
