"""Adds typed graphs and TensorRT plans to an exported repository.

`export_typed` runs on any machine: it writes the strongly typed ONNX graphs and the report of their error.
`export_plans` builds plans of them and runs on the GPU that will load them.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import heartvoice
from heartvoice.errors import EngineError, ExportError
from heartvoice.export import layout
from heartvoice.export.atomic_repository import staged
from heartvoice.export.graph_builder import FP32_REGIONS, Fp32Region
from heartvoice.export.layout import EXTERNAL_BYTES, GraphModel, to_json
from heartvoice.export.lint import lint
from heartvoice.export.mixed_precision import HALVES, RULES, TYPED_OPSET, HalfPrecision, type_graph
from heartvoice.export.mixed_precision_report import measure, store_report
from heartvoice.export.plan_builder import BuildProgress, PlanOptions, build_plan
from heartvoice.export.plan_profiles import profile
from heartvoice.export.repository import quantized_as, read_json
from heartvoice.export.writer import GRAPH_FILE, write_graph
from heartvoice.file_errors import write_file
from heartvoice.runtime import tensorrt_plans
from heartvoice.runtime.repository import MANIFEST, Repository
from heartvoice.runtime.tensorrt_plans import ACTIVE, PLANS, SIDECAR_SUFFIX, PlanPrecision, Target, plan_name

TYPED, TYPED_MANIFEST = "typed", "typed.json"
_PLAN_ROOM = 1.5
"""Free disk space for a plan, as a multiple of its graph's size."""


class PlanReporter(BuildProgress, Protocol):
    """Progress callbacks."""

    def typing(self, model: str) -> None:
        """Report that a graph is being typed."""

    def measuring(self, model: str) -> None:
        """Report that its error is being measured."""

    def building(self, model: str) -> None:
        """Report that its plan is being built."""

    def done(self, made: Made) -> None:
        """Report that it is ready."""


@dataclass(frozen=True)
class Made:
    """The outcome of one graph."""

    model: str
    written: bool
    """False: it was up to date."""
    path: Path
    n_bytes: int
    seconds: float = 0.0
    error: dict[str, Any] = field(default_factory=dict)
    """Result of `mixed_precision_report.measure`; empty if nothing was measured."""


@dataclass(frozen=True)
class PlanJob:
    """The request: repository, precision and graphs."""

    root: Path
    precision: PlanPrecision
    only: Collection[str] = ()
    fp32_regions: Collection[Fp32Region] = FP32_REGIONS
    report: bool = True
    """True measures the error, which runs every graph twice on the CPU."""
    inputs: Path | None = None
    """Folder of recorded inputs for the report."""

    @property
    def half(self) -> HalfPrecision | None:
        """Return the precision if it is a half precision, else None."""
        return next((known for known in HALVES if known == self.precision), None)


def plan_models(repository: Repository, only: Collection[str] = ()) -> list[GraphModel]:
    """Return the graphs that plans are built from.

    Raises:
        ExportError: a requested graph is not among them.
    """
    graphs = layout.graph_models(repository.preset, quantized_as(repository.root))
    able = {name: model for name, model in graphs.items() if model.spec.plan}
    for name in only:
        if name in graphs and name not in able:
            raise ExportError(
                f"only: {name}: on GPUs the language model runs in PyTorch with CUDA graphs, not in TensorRT "
                "(docs/how-to/gpu.md)"
            )
        if name not in able:
            raise ExportError(f"only: no graph {name}; there are {', '.join(able)}")
    return [model for name, model in able.items() if not only or name in only]


def export_typed(job: PlanJob, reporter: PlanReporter) -> list[Made]:
    """Write the typed graphs, `MODEL/typed/PRECISION/model.onnx`, and the report.

    Raises:
        ExportError: the precision is not half, a graph is not float32, TensorRT has no such operation, half precision
            overflows, or another export is running.
        EngineError: the folder is no exported repository.
    """
    if job.half is None:
        raise ExportError(f"precision: typed graphs are in {' or '.join(HALVES)}, got {job.precision}")
    repository = Repository(job.root.resolve())
    models = plan_models(repository, job.only)
    with staged(repository.root) as staging:
        made = []
        for model in models:
            start = time.perf_counter()
            folder = staging.root / TYPED
            about, n_bytes = _typed(repository, model, job, folder, reporter)
            path = repository.root / model.name / TYPED / job.precision
            error = _report(repository, model, job, reporter)
            if path.is_dir():
                shutil.rmtree(path)
            path.parent.mkdir(exist_ok=True)
            write_file(folder / TYPED_MANIFEST, to_json(about))
            folder.replace(path)
            made.append(Made(model.name, True, path / GRAPH_FILE, n_bytes, time.perf_counter() - start, error))
            reporter.done(made[-1])
        return made


def export_plans(
    job: PlanJob,
    trt: Any,
    target: Target,
    reporter: PlanReporter,
    *,
    options: PlanOptions | None = None,
    timing_cache: Path | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> list[Made]:
    """Build the plans that are missing or out of date, and link them where Triton loads them.

    Args:
        job: the request.
        trt: the module `tensorrt`.
        target: this machine.
        reporter: progress callbacks.
        options: of the builds.
        timing_cache: file that is read before and written after each build.
        cancelled: called between steps of a build; true ends it.

    Raises:
        ExportError: as `export_typed`; or TensorRT refuses a graph.
        EngineError: the folder is no exported repository.
    """
    repository = Repository(job.root.resolve())
    models = plan_models(repository, job.only)
    chosen = replace(options or PlanOptions(), tf32=job.precision == "tf32")
    with staged(repository.root) as staging:
        made = []
        for model in models:
            made.append(
                _plan(repository, model, job, trt, target, reporter, chosen, timing_cache, cancelled, staging.root)
            )
            reporter.done(made[-1])
        return made


# ------------------------------------------------------------------------------------------------------------- pieces


def _plan(  # noqa: PLR0913 (the parts of a plan)
    repository: Repository, model: GraphModel, job: PlanJob, trt: Any, target: Target, reporter: PlanReporter,
    options: PlanOptions, timing_cache: Path | None, cancelled: Callable[[], bool], scratch: Path,
) -> Made:  # fmt: skip
    """Build one plan if it is missing or out of date."""
    start = time.perf_counter()
    folder = repository.root / model.name / PLANS
    path = folder / plan_name(repository.index["preset"], job.precision, target)
    shapes = profile(model, repository.preset)
    head: dict[str, Any] = {
        "model": model.name,
        "preset": repository.index["preset"],
        "precision": job.precision,
        "fp32_regions": sorted(job.fp32_regions) if job.half else [],
        "gpu": target.device.name,
        "compute_capability": target.device.compute_capability,
        "tensorrt": target.tensorrt,
        "typing": RULES,
        "onnx": tensorrt_plans.graph_hashes(repository, model.name),
        "profile": {name: [list(entry.least), list(entry.usual), list(entry.most)] for name, entry in shapes.items()},
        "options": asdict(options),
    }
    if _current(path, head, repository, target):
        _activate(path)
        return Made(model.name, False, path, path.stat().st_size)
    error: dict[str, Any] = {}
    with _clean(scratch / TYPED) as typed:
        graph, about = repository.graph(model.name), dict[str, Any]()
        if job.half:
            about, _ = _typed(repository, model, job, typed, reporter)
            graph = typed / GRAPH_FILE
            error = _report(repository, model, job, reporter)
        else:
            _check_lint(graph, model.name)
        _check_room(repository.root, sum(file.stat().st_size for file in graph.parent.glob(f"{GRAPH_FILE}*")))
        reporter.building(model.name)
        cache = timing_cache.read_bytes() if timing_cache is not None and timing_cache.is_file() else b""
        built = build_plan(trt, graph, shapes, options, timing_cache=cache, progress=reporter, cancelled=cancelled)
    if timing_cache is not None:
        timing_cache.parent.mkdir(parents=True, exist_ok=True)
        _replace(timing_cache, built.timing_cache)
    checksum = {"sha256": hashlib.sha256(built.plan).hexdigest(), "bytes": len(built.plan)}
    folder.mkdir(exist_ok=True)
    _replace(path, built.plan)
    sidecar = {
        **head,
        "heartvoice": heartvoice.__version__,
        "plan": checksum,
        "typed": about.get("files", {}),
        "error": error,
    }
    _replace(path.with_name(path.name + SIDECAR_SUFFIX), to_json(sidecar).encode())
    _activate(path)
    return Made(model.name, True, path, len(built.plan), time.perf_counter() - start, error)


def _current(path: Path, head: dict[str, Any], repository: Repository, target: Target) -> bool:
    """Return True if a plan exists and was made from the same inputs."""
    about = read_json(path.with_name(path.name + SIDECAR_SUFFIX))
    if not path.is_file() or any(about.get(key) != value for key, value in head.items()):
        return False
    try:
        plan = tensorrt_plans.Plan.read(path)
        plan.check(target, tensorrt_plans.graph_hashes(repository, head["model"]))
        plan.content()
    except EngineError:
        return False
    return True


def _activate(path: Path) -> None:
    """Link a plan and its sidecar where Triton loads them."""
    active = path.parent.parent / ACTIVE
    for source, link in (
        (path, active),
        (path.with_name(path.name + SIDECAR_SUFFIX), active.with_name(active.name + SIDECAR_SUFFIX)),
    ):
        fresh = link.with_name(f"{link.name}.new")
        fresh.unlink(missing_ok=True)
        os.link(source, fresh)
        fresh.replace(link)


def _typed(
    repository: Repository, model: GraphModel, job: PlanJob, folder: Path, reporter: PlanReporter
) -> tuple[dict[str, Any], int]:
    """Write one typed graph into an empty folder; return its description and its size in bytes."""
    assert job.half is not None
    reporter.typing(model.name)
    source = repository.graph(model.name)
    manifest = read_json(repository.root / model.name / MANIFEST)
    if manifest.get("precision") != "fp32":
        raise ExportError(
            f"{model.name}: its graph is {manifest.get('precision')}; typed graphs are made from float32 ones: export "
            "it with --precision fp32 first"
        )
    _check_lint(source, model.name)
    typed = type_graph(source, job.half, job.fp32_regions)
    _check_room(repository.root, typed.graph.nbytes)
    folder.mkdir()
    files = write_graph(typed.graph, folder, external_bytes=EXTERNAL_BYTES, opset=TYPED_OPSET[job.half])
    _check_lint(folder / GRAPH_FILE, f"{model.name} ({job.precision})")
    about = {
        "model": model.name,
        "precision": job.precision,
        "fp32_regions": sorted(job.fp32_regions),
        "source": tensorrt_plans.graph_hashes(repository, model.name),
        "nodes": typed.counts,
        "files": files,
    }
    return about, sum(int(entry["bytes"]) for entry in files.values())


def _report(repository: Repository, model: GraphModel, job: PlanJob, reporter: PlanReporter) -> dict[str, Any]:
    """Measure one graph and store it.

    Raises:
        ExportError: half precision overflows.
    """
    if not job.report or job.half is None:
        return {}
    reporter.measuring(model.name)
    found = measure(repository, model, job.half, job.fp32_regions, inputs=job.inputs)
    store_report(repository, job.half, job.fp32_regions, {model.name: found})
    over = [name for name, error in found.get("errors", {}).items() if "overflow" in error]
    if over:
        raise ExportError(f"{model.name}: {job.precision} overflows in {', '.join(over)}; take bf16 or fp32")
    return found


def _check_lint(path: Path, model: str) -> None:
    found = lint(path, model)
    graver_first = sorted(found.findings, key=lambda item: item.level != "unsupported")
    bad = [f"{item.operator}: {item.text} ({item.level})" for item in graver_first if item.level != "limited"]
    if bad:
        raise ExportError(f"{model}: not for TensorRT: " + "; ".join(bad))


def _check_room(root: Path, n_bytes: int) -> None:
    free, needed = shutil.disk_usage(root).free, n_bytes * _PLAN_ROOM
    if free < needed:
        raise ExportError(f"{root}: needs {needed / 1e9:.1f} GB on disk, {free / 1e9:.1f} GB are free")


def _replace(path: Path, content: bytes) -> None:
    fresh = path.with_name(f"{path.name}.new")
    write_file(fresh, content)
    fresh.replace(path)


@contextmanager
def _clean(folder: Path) -> Iterator[Path]:
    """Remove the folder before and after the block."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
