"""Runs `heartvoice export lint`, `typed` and `plans` and prints their results."""

from __future__ import annotations

import json
import shlex
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from heartvoice.contracts.types import Axis
from heartvoice.export import layout
from heartvoice.export.lint import Lint, lint, operator_table
from heartvoice.export.mixed_precision_report import worst_text
from heartvoice.export.plan_builder import PlanOptions, import_tensorrt
from heartvoice.export.plan_export import Made, PlanJob, export_plans, export_typed
from heartvoice.export.plan_profiles import profile, trtexec_shapes
from heartvoice.export.repository import quantized_as
from heartvoice.export.wheel_files import cache_folder
from heartvoice.runtime.repository import Repository
from heartvoice.runtime.tensorrt_engine import this_target
from heartvoice.runtime.tensorrt_plans import REPORT, Target

_POLL_S = 0.1
_UNRUN = "TensorRT plans of this project have not been run on a GPU yet (docs/how-to/gpu.md)"


# --------------------------------------------------------------------------------------------------------------- lint


def lint_repository(repository: Repository) -> list[tuple[Lint, bool]]:
    """Lint every graph of a repository; also return whether plans are built from it."""
    found = []
    for name, model in layout.graph_models(repository.preset, quantized_as(repository.root)).items():
        result = lint(repository.graph(name), name)
        axes = [axis for spec in model.spec.inputs for axis in spec.shape if isinstance(axis, Axis)]
        for name_of_axis in sorted({axis.name for axis in axes if axis.min == 0}):
            result.add("limited", "graph", f"axis {name_of_axis} may be 0: empty tensors")
        found.append((result, model.spec.plan))
    return found


def run_lint(console: Console, root: Path) -> None:
    """Print the findings; exit 1 if a graph for plans is not plainly supported."""
    repository, table = Repository(root), operator_table()
    results = lint_repository(repository)
    console.print(_lint_table(results, table["tensorrt"]))
    for result, _ in results:
        for item in result.findings:
            console.print(
                f"{result.model}: {item.level}: {item.operator}: {item.text} (x {item.count})",
                markup=False, highlight=False, soft_wrap=True,
            )  # fmt: skip
    head = {key: table[key] for key in ("tensorrt", "source", "opsets")}
    print(json.dumps({"table": head, "graphs": [{**result.to_json(), "plan": plan} for result, plan in results]}))
    if any(plan and not result.clean for result, plan in results):
        raise typer.Exit(1)


def _lint_table(results: list[tuple[Lint, bool]], version: str) -> Table:
    table = Table(title=f"against the operator table of TensorRT {version}", title_justify="left")
    table.add_column("graph", no_wrap=True)
    for name in ("nodes", "operators", "unsupported", "unknown", "limited"):
        table.add_column(name, justify="right")
    table.add_column("plan")
    for result, plan in results:
        counts = [str(result.count(level)) for level in ("unsupported", "unknown", "limited")]
        verdict = ("yes" if result.clean else "[red]no[/]") if plan else "not made"
        table.add_row(result.model, str(result.n_nodes), str(len(result.operators)), *counts, verdict)
    return table


# -------------------------------------------------------------------------------------------------------------- plans


def make_typed(console: Console, job: PlanJob) -> None:
    """Make typed graphs and the report; print trtexec commands to build them without this package."""
    with _bars(console) as reporter:
        made = export_typed(job, reporter)
    repository = Repository(job.root)
    _tell_errors(console, repository, job, made)
    models = layout.graph_models(repository.preset)
    for entry in made:
        shapes = trtexec_shapes(profile(models[entry.model], repository.preset))
        command = ["trtexec", f"--onnx={entry.path}", "--stronglyTyped", "--noTF32", *shapes]
        console.print(shlex.join(command), markup=False, highlight=False, soft_wrap=True)


def make_plans(console: Console, job: PlanJob, timing_cache: Path | None, workspace_bytes: int) -> None:
    """Build plans for this machine's GPU. Ctrl-C ends a build at its next step without partial files."""
    console.print(f"[yellow]{_UNRUN}[/]")
    trt = import_tensorrt()
    target = this_target(trt)
    console.print(f"TensorRT {target.tensorrt} on {target.device}", highlight=False)
    cache = timing_cache or cache_folder() / _cache_name(target)
    options = PlanOptions(workspace_bytes=workspace_bytes)
    with _bars(console) as reporter, _interruptible() as stopped, ThreadPoolExecutor(1) as builder:
        building = builder.submit(
            export_plans, job, trt, target, reporter, options=options, timing_cache=cache, cancelled=stopped.is_set
        )
        # Signals reach Python in the main thread alone, and not while it is inside TensorRT.
        while not building.done():
            wait([building], timeout=_POLL_S)
        made = building.result()
    _tell_errors(console, Repository(job.root), job, made)
    written = sum(entry.written for entry in made)
    console.print(f"{job.root}: {written} plans built, {len(made) - written} up to date; timings in {cache}")


def _cache_name(target: Target) -> str:
    return f"tensorrt/{target.device.slug}.trt{target.tensorrt}.timing"


def _tell_errors(console: Console, repository: Repository, job: PlanJob, made: list[Made]) -> None:
    """Print the report as a table."""
    if not any(entry.error for entry in made):
        return
    table = Table(title=f"{job.precision} against float32, emulated; {repository.root / REPORT}", title_justify="left")
    for name in ("graph", "inputs", "error"):
        table.add_column(name)
    for entry in made:
        if entry.error:
            table.add_row(entry.model, str(entry.error.get("inputs", "")), worst_text(entry.error))
    console.print(table)
    if repository.random_weights:
        console.print("[yellow]random weights have no outliers: real ones may fare worse[/]")


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Yield an event set by the first Ctrl-C or SIGTERM; TensorRT's builder passes no exceptions."""
    stopped = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopped.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _bars(console: Console) -> Iterator[_PlanBars]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        yield _PlanBars(progress, console)


class _PlanBars:
    """Progress bars: one for the current graph, one for each phase of TensorRT's builder."""

    def __init__(self, progress: Progress, console: Console) -> None:
        self._progress, self._console = progress, console
        self._phases: dict[str, TaskID] = {}
        self._task: TaskID | None = None

    def typing(self, model: str) -> None:
        """Show that a graph is being typed."""
        self._start(f"{model}: typing")

    def measuring(self, model: str) -> None:
        """Show that a graph's error is being measured."""
        self._start(f"{model}: measuring its error")

    def building(self, model: str) -> None:
        """Show that a plan is being built."""
        self._start(f"{model}: building")

    def phase(self, name: str, n_steps: int) -> None:
        """Add a bar."""
        self._phases[name] = self._progress.add_task(f"  {name}", total=n_steps)

    def step(self, name: str, step: int) -> None:
        """Move a bar; steps count from 0."""
        if name in self._phases:
            self._progress.update(self._phases[name], completed=step + 1)

    def phase_done(self, name: str) -> None:
        """Remove a bar."""
        if name in self._phases:
            self._progress.remove_task(self._phases.pop(name))

    def done(self, made: Made) -> None:
        """Replace the bars by a line."""
        self._stop()
        size = f"{made.n_bytes / 1e6:.1f} MB"
        error = f"; differs from float32 by {worst_text(made.error)}" if made.error else ""
        what = f"{size} in {made.seconds:.1f} s{error}" if made.written else f"{size}, up to date"
        self._console.print(f"{made.model}: {what}", highlight=False, soft_wrap=True)

    def _start(self, description: str) -> None:
        self._stop()
        self._task = self._progress.add_task(description, total=None)

    def _stop(self) -> None:
        for name in list(self._phases):
            self.phase_done(name)
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None
