"""Shared parts of all benchmarks: calibration, alternating measurement, percentiles, table and JSON line.

    run = Run("engine", preset="mid", precision="fp32", threads=2)
    timings = alternate({"eager": eager, "onnxruntime": graph}, n=40)
    run.add("LM step", "eager", timings["eager"])
    run.add("LM step", "onnxruntime", timings["onnxruntime"], baseline=timings["eager"])
    run.finish()

Variants run alternately, so that a ratio compares neighbours in time and slow drift cancels. A run calibrates before
and after. If the machine delivers less than 80 % of its best rate, the result is kept and marked contended; do not draw
conclusions from it. Needs numpy and torch; `rich` improves the table.
"""

from __future__ import annotations

import datetime
import itertools
import json
import math
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from heartvoice.file_errors import write_file
from heartvoice.loadtest import machine

_CHECKOUT_RESULTS = machine.ROOT / "benchmarks" / "results"
RESULTS = _CHECKOUT_RESULTS if _CHECKOUT_RESULTS.is_dir() else Path("benchmark-results")
"""Results folder of the checkout; outside a checkout, a folder in the current directory."""
CALIBRATION = "calibration.json"
CONTENDED_BELOW = 0.8
"""Share of the machine's best calibration below which a run is marked contended."""
_BUFFER_BYTES = 2**28
_MATRIX = 1024
_REPEATS = 15

Values = npt.NDArray[Any]


# -------------------------------------------------------------------------------------------------------------- timing


@dataclass(frozen=True)
class Timing:
    """Seconds of each repetition, in the order of measurement."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median in seconds."""
        return float(np.median(self.seconds))

    def summary(self) -> dict[str, float | int]:
        """Return n, p50, p95, p99, minimum and mean in milliseconds; percentiles are interpolated linearly."""
        p50, p95, p99 = (float(np.percentile(self.seconds, q)) * 1e3 for q in (50, 95, 99))
        rest = {"min_ms": min(self.seconds) * 1e3, "mean_ms": math.fsum(self.seconds) / len(self.seconds) * 1e3}
        return {"n": len(self.seconds), "p50_ms": p50, "p95_ms": p95, "p99_ms": p99, **rest}


def paired_ratio(timing: Timing, baseline: Timing) -> dict[str, float]:
    """Return ratios of times of the same rounds (median, quartiles) and of the minima.

    Raises:
        ValueError: the timings come from different rounds.
    """
    ratios = [a / b for a, b in zip(timing.seconds, baseline.seconds, strict=True)]
    low, middle, high = (float(value) for value in np.percentile(ratios, [25, 50, 75]))
    least = min(timing.seconds) / min(baseline.seconds)
    return {"ratio": middle, "ratio_p25": low, "ratio_p75": high, "ratio_of_min": least}


def alternate(
    variants: Mapping[str, Callable[[], object]],
    *,
    n: int,
    warmup: int = 2,
    lead: int = 0,
    limit_s: float = math.inf,
    least: int = 3,
) -> dict[str, Timing]:
    """Run variants alternately and time each call.

    Args:
        variants: functions to time, by name. Each round calls all of them, in rotating order.
        n: rounds.
        warmup: uncounted rounds before them.
        lead: uncounted calls of a variant right before each counted one: they fill the caches, and the previous
            variant's threads stop spinning.
        limit_s: no new round begins after so many seconds, warm-up excluded, ...
        least: ... but at least this number of rounds is run.
    """
    names = list(variants)
    for _ in range(warmup):
        for name in names:
            variants[name]()
    seconds: dict[str, list[float]] = {name: [] for name in names}
    begin = time.perf_counter()
    for index in range(n):
        if index >= least and time.perf_counter() - begin > limit_s:
            break
        turn = index % max(len(names), 1)
        for name in names[turn:] + names[:turn]:
            for _ in range(lead):
                variants[name]()
            start = time.perf_counter()
            variants[name]()
            seconds[name].append(time.perf_counter() - start)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def difference(value: Values, reference: Values) -> dict[str, float]:
    """Return |a - b| / |b|, also as signal-to-noise ratio in dB (equal arrays: 0 and 999)."""
    wide = reference.astype(np.float64)
    error = float(np.linalg.norm(value.astype(np.float64) - wide) / np.linalg.norm(wide))
    return {"relative_error": error, "snr_db": -20 * math.log10(error) if error else 999.0}


# --------------------------------------------------------------------------------------------------------- calibration


def calibrate() -> dict[str, float]:
    """Measure the machine's current read bandwidth and rate of an eager matrix product (1.5 s).

    Returns:
        `bandwidth_gb_s` and `matmul_gflop_s`, medians, with one thread per core.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(machine.n_cores())
    try:
        buffer = torch.ones(_BUFFER_BYTES // 4)
        generator = torch.Generator().manual_seed(0)
        left, right = (torch.rand(_MATRIX, _MATRIX, generator=generator) for _ in range(2))
        timings = alternate({"bandwidth": buffer.sum, "matmul": lambda: left @ right}, n=_REPEATS, warmup=2)
    finally:
        torch.set_num_threads(before)
    return {
        "bandwidth_gb_s": _BUFFER_BYTES / timings["bandwidth"].median / 1e9,
        "matmul_gflop_s": 2 * _MATRIX**3 / timings["matmul"].median / 1e9,
    }


class BestCalibration:
    """Best measured rates of each machine, in one file for all machines."""

    def __init__(self, path: Path, key: str) -> None:
        """Open the file; a missing file is empty."""
        self.path, self.key = path, key

    def _read(self) -> dict[str, dict[str, float]]:
        if not self.path.is_file():
            return {}
        stored: dict[str, dict[str, float]] = json.loads(self.path.read_text(encoding="utf-8"))
        return stored

    def update(self, rates: Mapping[str, float]) -> dict[str, float]:
        """Add new rates; return the best rates so far, including these."""
        stored = self._read()
        old = stored.get(self.key, {})
        best = old | {name: max(rate, old.get(name, 0.0)) for name, rate in rates.items()}
        if best != old:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps(stored | {self.key: best}, indent=1, sort_keys=True) + "\n"
            _write(self.path, text)
        return best


def contention(rates: Mapping[str, float], best: Mapping[str, float]) -> list[str]:
    """Return the rates that are too far below their best."""
    return [name for name, rate in rates.items() if rate < CONTENDED_BELOW * best[name]]


def _write(path: Path, text: str) -> None:
    """Write the file atomically."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    write_file(fresh, text)
    fresh.replace(path)


# ---------------------------------------------------------------------------------------------------------------- runs


def without_folders(argument: str) -> str:
    """Return a command's argument with absolute paths cut to their last part: folders name a machine's owner."""
    return re.sub(r"(^|=)/(?:[^/]*/)*(?=[^/])", r"\1", argument)


@dataclass
class Run:
    """One run of a benchmark: calibrates at start and end, collects rows, writes one JSON file."""

    name: str
    preset: str
    precision: str
    threads: int
    results: Path = RESULTS
    """Folder of the result and of the best calibrations."""
    about: dict[str, Any] = field(default_factory=dict)
    """Additional facts for the head of the result."""
    calibration: Callable[[], dict[str, float]] = calibrate
    key: str = ""
    """Name of the machine among the best calibrations; default processor and cores."""
    rows: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Calibrate the machine."""
        self.key = self.key or f"{machine.cpu_model()} x {machine.n_cores()}"
        self._started, self._cpu = datetime.datetime.now(datetime.timezone.utc), machine.CpuTimes.now()
        self._load = os.getloadavg()
        self._head = {
            **machine.commit(),
            "command": " ".join([Path(sys.argv[0]).name, *map(without_folders, sys.argv[1:])]),
            "started": self._started.isoformat(timespec="seconds"),
            "machine": machine.facts(),
            "versions": machine.versions(),
            "environment": machine.environment(),
        }
        self._calibrations = [self.calibration()]
        self.best = self._remember()

    @property
    def rates(self) -> dict[str, float]:
        """Calibration at the start."""
        return self._calibrations[0]

    @cached_property
    def path(self) -> Path:
        """Path of the result file, which no other run has: runs that start in one second are numbered."""
        self.results.mkdir(parents=True, exist_ok=True)
        name = f"{self.name}-{self.preset}-{self._started:%Y%m%dT%H%M%SZ}"
        for number in itertools.count(1):
            path = self.results / (f"{name}.json" if number == 1 else f"{name}-{number}.json")
            with suppress(FileExistsError):
                path.touch(exist_ok=False)
                break
        return path

    def _remember(self) -> dict[str, float]:
        return BestCalibration(self.results / CALIBRATION, self.key).update(self._calibrations[-1])

    def add(
        self, case: str, variant: str, timing: Timing | None = None, *, baseline: Timing | None = None, **facts: Any
    ) -> dict[str, Any]:
        """Add a row: case, variant, times, ratio to a baseline of the same rounds, and facts.

        A variant that could not run has no timing and gives the reason: `failed="..."`.
        """
        row: dict[str, Any] = {"case": case, "variant": variant}
        if timing is not None:
            row |= timing.summary()
        if timing is not None and baseline is not None:
            row |= paired_ratio(timing, baseline)
        self.rows.append(row | facts)
        return self.rows[-1]

    def result(self, *, complete: bool = True) -> dict[str, Any]:
        """Return the current result, ready for JSON."""
        now = datetime.datetime.now(datetime.timezone.utc)
        slow = [contention(rates, self.best) for rates in self._calibrations]
        return {
            "benchmark": self.name,
            "preset": self.preset,
            "precision": self.precision,
            "threads": self.threads,
            "complete": complete,
            "contended": any(slow),
            **self.about,
            **self._head,
            "finished": now.isoformat(timespec="seconds"),
            "calibration": {"measured": self._calibrations, "best": self.best, "slow": slow},
            "load": {"average_1min": self._load[0], "others_cpu": machine.CpuTimes.now().others(self._cpu)},
            "rows": self.rows,
        }

    def save(self) -> None:
        """Write the intermediate result, so that a killed run keeps it."""
        self._store(self.result(complete=False))

    def _store(self, result: Mapping[str, Any]) -> None:
        _write(self.path, json.dumps(_rounded(result)) + "\n")

    def store(self) -> dict[str, Any]:
        """Calibrate again, write the result and return it."""
        self._calibrations.append(self.calibration())
        self.best = self._remember()
        result = self.result()
        self._store(result)
        return result

    def finish(self, *, json_line: bool = True) -> dict[str, Any]:
        """Finish the run and return the result.

        Calibrate again, write the result, and print the table and the JSON line (or the file's path).
        """
        result = self.store()
        print_table(result)
        print(json.dumps(_rounded(result)) if json_line else self.path)
        return result


def _rounded(value: Any) -> Any:
    """Round floats to six digits, recursively; NaN and infinities become text."""
    if isinstance(value, Mapping):
        return {key: _rounded(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(entry) for entry in value]
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.6g}") if math.isfinite(value) else str(value)
    return value.item() if isinstance(value, np.generic) else value


# --------------------------------------------------------------------------------------------------------------- table

_FIRST = ("case", "variant", "n", "p50_ms", "p95_ms", "p99_ms", "ratio")
_NOT_SHOWN = frozenset(
    {
        "min_ms", "mean_ms", "ratio_p25", "ratio_p75", "ratio_of_min", "positions", "frames", "top", "failed",
        "question", "model", "concurrency", "seconds", "inner_queues_ms", "errors", "refusals",
    }
)  # fmt: skip
_WIDTH = 180
"""Columns of a table that is not printed to a terminal."""


def print_table(result: Mapping[str, Any]) -> None:
    """Print the rows by case, with all columns of the case."""
    state = "contended: claim nothing from it" if result["contended"] else "quiet"
    print(f"\n{result['benchmark']} {result['preset']} {result['precision']}, {result['threads']} threads, {state}")
    for case in dict.fromkeys(row["case"] for row in result["rows"]):
        rows = [row for row in result["rows"] if row["case"] == case]
        measured = [row for row in rows if "failed" not in row]
        known = dict.fromkeys(name for row in measured for name in row if name not in _NOT_SHOWN)
        columns = [name for name in _FIRST[1:] if name in known] + [name for name in known if name not in _FIRST]
        cells = [[_cell(row.get(name, "")) for name in columns] for row in measured]
        if measured:
            _print_rows(case, columns, cells)
        for row in rows:
            if "failed" in row:
                print(f"{row['variant']}: FAILED: {row['failed'].splitlines()[0]}")


def _cell(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def _print_rows(title: str, columns: list[str], cells: list[list[str]]) -> None:
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
        print(f"\n{title}")
        for row in (columns, *cells):
            print("  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)).rstrip())
        return
    table = Table(title=title, title_justify="left")
    for index, name in enumerate(columns):
        table.add_column(name, justify="right" if index else "left", no_wrap=True)
    for row in cells:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else _WIDTH).print(table)
