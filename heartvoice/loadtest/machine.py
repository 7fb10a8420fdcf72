"""Facts about the machine of a benchmark: processor, GPU, versions, commit, memory, load. Standard library only."""

from __future__ import annotations

import concurrent.futures
import csv
import importlib.metadata
import multiprocessing
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
"""Root of the checkout."""
PACKAGES = ("torch", "numpy", "onnxruntime", "openvino", "onnx", "tritonclient", "nvidia-pytriton")
_GPU_FIELDS = (
    "name", "driver_version", "memory.total", "clocks.sm", "clocks.max.sm", "clocks.mem", "clocks.max.mem",
    "power.draw", "power.limit", "temperature.gpu", "utilization.gpu",
)  # fmt: skip
_VARIABLES = ("OMP_", "GOMP_", "KMP_", "MKL_", "CUDA_", "PYTORCH_", "TORCH", "HEARTVOICE_", "LD_PRELOAD")
_TIMEOUT_S = 20


def _output(command: Sequence[str]) -> str | None:
    """Return a command's standard output; None if it is missing, fails or hangs."""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def cpu_model() -> str:
    """Return the processor's name as reported by Linux."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    found = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()


def n_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def gpu_facts() -> dict[str, str] | None:
    """Return name, driver, clocks and load of the first NVIDIA GPU; None without a GPU."""
    text = _output(["nvidia-smi", f"--query-gpu={','.join(_GPU_FIELDS)}", "--format=csv,noheader"])
    rows = list(csv.reader((text or "").splitlines(), skipinitialspace=True))
    if not rows or len(rows[0]) != len(_GPU_FIELDS):
        return None
    return dict(zip(_GPU_FIELDS, rows[0], strict=True))


def commit() -> dict[str, Any]:
    """Return the commit, and whether tracked or new files differ from it (results excepted)."""
    head = _output(["git", "rev-parse", "HEAD"])
    if head is None:
        return {"commit": None, "dirty": None}
    changed = _output(["git", "status", "--porcelain", "--", ".", ":!benchmarks/results"])
    return {"commit": head.strip(), "dirty": bool(changed)}


def versions() -> dict[str, str]:
    """Return the versions of Python, heartvoice and installed packages that affect speed."""
    from heartvoice import __version__

    found = {"python": platform.python_version(), "heartvoice": __version__}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def environment() -> dict[str, str]:
    """Return the environment variables that affect threads and device selection; not those that name folders."""
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if name.startswith(_VARIABLES) and not value.startswith("/")
    }


def facts() -> dict[str, Any]:
    """Return all facts of this module, for a result."""
    gpu = gpu_facts()
    return {
        "cpu": cpu_model(),
        "cores": n_cores(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": platform.platform(),
        "gpu": gpu["name"] if gpu else None,
        "driver": gpu["driver_version"] if gpu else None,
    }


# ---------------------------------------------------------------------------------------------------------------- load


@dataclass(frozen=True)
class CpuTimes:
    """Processor seconds since boot: of the whole machine, and of this process with its ended children."""

    wall: float
    busy: float
    own: float

    @classmethod
    def now(cls) -> CpuTimes:
        """Read the counters; without /proc, 0 busy seconds."""
        times = os.times()
        try:
            line = Path("/proc/stat").read_text(encoding="utf-8").split("\n", 1)[0]
            ticks = [int(value) for value in line.split()[1:9]]  # user nice system idle iowait irq softirq steal
        except OSError:
            ticks = [0] * 8
        busy = (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")
        return cls(times.elapsed, busy, sum(times[:4]))

    def others(self, since: CpuTimes) -> float:
        """Return other processes' share of the processor time since then (steal included), 0 to 1."""
        wall = max(self.wall - since.wall, 1e-9)
        share = ((self.busy - since.busy) - (self.own - since.own)) / wall / (os.cpu_count() or 1)
        return min(max(share, 0.0), 1.0)


# -------------------------------------------------------------------------------------------------------------- memory


def _status(field: str) -> int:
    """Return a field of /proc/self/status in bytes."""
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    found = re.search(rf"^{field}:\s*(\d+) kB$", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def rss() -> int:
    """Return the resident bytes of this process."""
    return _status("VmRSS")


def peak_rss() -> int:
    """Return the peak resident bytes of this process since its start or `reset_peak_rss`."""
    return _status("VmHWM")


def reset_peak_rss() -> None:
    """Reset `peak_rss`; no effect if the kernel refuses."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        print(
            "peak memory counts from the start of the process: /proc/self/clear_refs is not writable", file=sys.stderr
        )


@dataclass(frozen=True)
class Peak:
    """Resident bytes of a process: after loading, and the peak of one run."""

    loaded: int
    peak: int

    @property
    def growth(self) -> int:
        """Bytes added by running."""
        return self.peak - self.loaded


def peak_in_child(build: Callable[..., Callable[[], object]], *args: Any) -> Peak:
    """Measure the peak memory of one run in a new process, without leftovers of earlier variants.

    Args:
        build: importable by name; loads what is needed and returns the function to measure.
        args: arguments of `build`; pickled.
    """
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_measure_peak, build, *args).result()


def _measure_peak(build: Callable[..., Callable[[], object]], *args: Any) -> Peak:
    run = build(*args)
    reset_peak_rss()
    loaded = rss()
    run()
    return Peak(loaded, peak_rss())
