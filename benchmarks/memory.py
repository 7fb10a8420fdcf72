"""How much memory does a server take before, during and after its longest cover?

    python -m benchmarks.memory [--checkout BASE=../heartvoice-c4ae458 --checkout NOW=.] [--seconds 600]

Each checkout is served by its own `heartvoice serve` over its own export, and makes the same cover by its own
`heartvoice cover`. Memory is the proportional set size (PSS) of the supervisor, Triton and every model's process: a
page that n of them share counts 1/n for each. It is read every 0.25 s, so peaks shorter than that are missed.

Few steps of the converter's flow (`--svc-steps`) shorten the run, and not one array of the song.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from heartvoice.client import Client
from heartvoice.loadtest import machine
from heartvoice.loadtest.harness import Run
from heartvoice.server.server import free_port

SAMPLE_S = 0.25
SETTLE_S = 10.0
"""Seconds that an idle server gets before its memory counts."""
EXAMPLES = machine.ROOT / "heartvoice" / "examples"
AFTER_S = (10, 30, 90)
"""Seconds after the cover at which idle memory is read."""
_STUB = re.compile(r"triton_python_backend_stub\0.*\0(\w+)_\d+_\d+\0")
"""Command line of a model's process; the instance's name ends with two numbers."""
_PSS = re.compile(r"^(Pss(?:_Anon|_File|_Shmem)?): +(\d+) kB$", re.MULTILINE)

Pss = dict[str, dict[str, int]]
"""Megabytes by process and kind of page."""


def descendants(pid: int) -> list[int]:
    """Return a process and all processes that it started."""
    parents: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(folder.name))
    found = [pid]
    for each in found:
        found += parents.get(each, [])
    return found


def read_pss(pid: int) -> Pss:
    """Read the PSS of a server by process: the model's name, `triton`, or `serve`."""
    read: Pss = {}
    for each in descendants(pid):
        try:
            command = Path(f"/proc/{each}/cmdline").read_text()
            rollup = Path(f"/proc/{each}/smaps_rollup").read_text()
        except OSError:
            continue  # it has just ended
        stub = _STUB.search(command)
        name = stub[1] if stub else "serve" if each == pid else "triton"
        values = {kind: int(kb) // 1024 for kind, kb in _PSS.findall(rollup)}
        read[name] = {kind: read.get(name, {}).get(kind, 0) + mb for kind, mb in values.items()}
    return read


def total_mb(pss: Pss) -> int:
    """Return the sum over all processes."""
    return sum(process.get("Pss", 0) for process in pss.values())


@dataclass
class Sampler:
    """Reads a server's memory in a thread and keeps the highest sum."""

    pid: int
    peak: Pss = field(default_factory=dict)
    each_peak: dict[str, int] = field(default_factory=dict)
    """The highest PSS of each process, whenever it was."""

    @contextmanager
    def sampling(self) -> Iterator[None]:
        """Sample while the block runs."""
        ended = threading.Event()

        def sample() -> None:
            while not ended.wait(SAMPLE_S):
                now = read_pss(self.pid)
                self.peak = max(self.peak, now, key=total_mb)
                for name, process in now.items():
                    self.each_peak[name] = max(self.each_peak.get(name, 0), process.get("Pss", 0))

        thread = threading.Thread(target=sample)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


@dataclass(frozen=True)
class Checkout:
    """One version of heartvoice, with its own export."""

    name: str
    root: Path
    preset: str

    @property
    def repository(self) -> Path:
        """The exported repository."""
        return self.root / "build" / "repository" / self.preset

    def command(self, *arguments: str) -> list[str]:
        """Return the command line of `heartvoice` in this checkout."""
        found = re.search(r'^heartvoice = "([\w.]+):(\w+)"$', (self.root / "pyproject.toml").read_text(), re.MULTILINE)
        assert found is not None, f"{self.root}: expected the command heartvoice in pyproject.toml"
        return [sys.executable, "-c", f"from {found[1]} import {found[2]}; {found[2]}()", *arguments]

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment in which its package is found first."""
        return {**os.environ, "PYTHONPATH": str(self.root)}

    def run(self, *arguments: str) -> None:
        """Run a command to its end."""
        subprocess.run(self.command(*arguments), env=self.environment, cwd=self.root, check=True)

    @contextmanager
    def served(self) -> Iterator[tuple[int, str]]:
        """Serve it for the block; yields the supervisor's process and the endpoint."""
        self.run("export", "--preset", self.preset, "--random-weights", "0", "--repository", str(self.repository))
        port = free_port()
        arguments = ["--repository", str(self.repository), "--grpc-port", str(port), "--metrics-port", str(free_port())]
        process = subprocess.Popen(self.command("serve", *arguments), env=self.environment, cwd=self.root)
        try:
            with Client(f"127.0.0.1:{port}") as client:
                while not client.server_ready():
                    assert process.poll() is None, f"{self.name}: the server did not start"
                    time.sleep(0.5)
            yield process.pid, f"127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def make_recording(path: Path, seconds: int) -> None:
    """Repeat the example recording for so many seconds."""
    audio, rate_hz = soundfile.read(EXAMPLES / "recording.flac", dtype="float32")
    repeated = np.tile(audio, (-(-seconds * rate_hz // len(audio)), 1))[: seconds * rate_hz]
    soundfile.write(path, repeated, rate_hz, subtype="PCM_16")


def measure(run: Run, checkout: Checkout, folder: Path, seconds: int, svc_steps: int) -> None:
    """Add the rows of one checkout."""
    song = folder / f"{checkout.name}.flac"
    with checkout.served() as (pid, url):
        time.sleep(SETTLE_S)
        before = read_pss(pid)
        sampler = Sampler(pid)
        began = time.monotonic()
        with sampler.sampling():
            checkout.run(
                "cover", str(folder / "recording.flac"), "--voice", str(EXAMPLES / "voice.flac"),
                "--consent", "synthetic",
                "--url", url, "--timeout", "inf", "--seed", "7", "--svc-steps", str(svc_steps), "--output", str(song),
            )  # fmt: skip
        took_s = time.monotonic() - began
        ended = time.monotonic()
        after: Pss = {}
        facts: dict[str, Any] = {}
        for at in AFTER_S:
            time.sleep(max(0.0, ended + at - time.monotonic()))
            after = read_pss(pid)
            facts[f"after_{at}_s_mb"] = total_mb(after)
    samples = soundfile.read(song, dtype="int32")[0]
    run.add(
        f"cover of {seconds} s", checkout.name, before_mb=total_mb(before), peak_mb=total_mb(sampler.peak), **facts,
        ratio_after=total_mb(after) / total_mb(before), took_s=took_s,
        sha256=sha256(samples.tobytes()).hexdigest()[:16], commit=_commit(checkout.root),
    )  # fmt: skip
    for name in sorted(after, key=lambda name: -after[name].get("Pss", 0)):
        parts = {"before": before, "peak": sampler.peak, "after": after}
        of_process: dict[str, Any] = {f"{when}_mb": pss.get(name, {}).get("Pss", 0) for when, pss in parts.items()}
        of_process["own_peak_mb"] = sampler.each_peak.get(name, 0)
        of_process |= {f"after{kind[3:].lower()}_mb": mb for kind, mb in after[name].items() if kind != "Pss"}
        run.add(f"processes of {checkout.name}", name, **of_process)


def _commit(root: Path) -> str:
    done = subprocess.run(["git", "-C", str(root), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return done.stdout.strip()


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--checkout", metavar="NAME=FOLDER", action="append", help="may be repeated; default: now=.")
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--svc-steps", type=int, default=1)
    options = parser.parse_args(arguments)
    run = Run("memory", preset=options.preset, precision="fp32", threads=machine.n_cores())
    folder = machine.ROOT / "build" / "memory"
    folder.mkdir(parents=True, exist_ok=True)
    make_recording(folder / "recording.flac", options.seconds)
    for named in options.checkout or ["now=."]:
        name, _, root = named.partition("=")
        measure(run, Checkout(name, Path(root).resolve(), options.preset), folder, options.seconds, options.svc_steps)
        run.save()
    run.finish(json_line=False)


if __name__ == "__main__":
    main()
