"""Builds a TensorRT plan from a strongly typed ONNX graph with TensorRT's Python API.

Written against the documentation and the bindings of TensorRT 10.13 and 11.4 and **not yet run on a GPU**: the tests
use a fake made from the signatures of those bindings. The module `tensorrt` is an argument, so nothing here imports it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from heartvoice.errors import EngineError, ExportError
from heartvoice.export.plan_profiles import InputProfile

log = logging.getLogger(__name__)
WORKSPACE_BYTES = 4 * 2**30
"""Largest scratch memory of one layer in bytes."""
OPTIMIZATION_LEVEL = 3
"""TensorRT's default; 5 searches longest."""


class BuildProgress(Protocol):
    """Progress callbacks of a build, called from TensorRT's threads."""

    def phase(self, name: str, n_steps: int) -> None:
        """Report the start of a phase with its number of steps."""

    def step(self, name: str, step: int) -> None:
        """Report the current step of a phase."""

    def phase_done(self, name: str) -> None:
        """Report the end of a phase."""


@dataclass(frozen=True)
class PlanOptions:
    """Settings of a build, in addition to graph and profile."""

    tf32: bool = False
    """True lets float32 products be rounded to TF32; float32 regions are then less precise."""
    workspace_bytes: int = WORKSPACE_BYTES
    optimization_level: int = OPTIMIZATION_LEVEL


@dataclass(frozen=True)
class Built:
    """A finished build."""

    plan: bytes
    timing_cache: bytes


def import_tensorrt() -> Any:
    """Import TensorRT's Python module.

    Raises:
        EngineError: it is not installed.
    """
    try:
        import tensorrt
    except ImportError as error:
        raise EngineError(
            "TensorRT is not installed: run this in NVIDIA's container (docs/how-to/gpu.md), or pip install "
            "tensorrt-cu13; the version must be that of the server that loads the plan"
        ) from error
    return tensorrt


def build_plan(
    trt: Any,
    graph: Path,
    shapes: Mapping[str, InputProfile],
    options: PlanOptions,
    *,
    timing_cache: bytes = b"",
    progress: BuildProgress | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Built:
    """Build a plan for this machine's GPU.

    Args:
        trt: the module `tensorrt`.
        graph: the typed ONNX file; its weights may lie beside it.
        shapes: the profile, by input.
        options: settings of the build.
        timing_cache: of earlier builds on this GPU and version; one that does not fit is ignored with a warning.
        progress: progress callbacks.
        cancelled: called after every step; true ends the build.

    Raises:
        ExportError: TensorRT refuses the graph (with each of the parser's reasons), the profile, or the build.
    """
    logger = _logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(graph)):
        reasons = [_reason(parser.get_error(index)) for index in range(parser.num_errors)]
        raise ExportError(f"{graph}: TensorRT's parser refuses it: " + ("; ".join(reasons) or "no reason given"))
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    config.builder_optimization_level = options.optimization_level
    if not options.tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    cache = _timing_cache(config, timing_cache)
    _add_profile(builder, config, network, shapes)
    monitor = _monitor(trt, progress, cancelled)
    config.progress_monitor = monitor
    serialized = builder.build_serialized_network(network, config)
    if cancelled():
        raise ExportError(f"{graph}: the build was cancelled")
    if serialized is None:
        raise ExportError(f"{graph}: TensorRT builds no plan; its log above says why")
    return Built(bytes(serialized), bytes(cache.serialize()))


def _reason(error: Any) -> str:
    return f"node {error.node()} {error.node_operator()} {error.node_name()}: {error.desc()}"


def _timing_cache(config: Any, content: bytes) -> Any:
    cache = config.create_timing_cache(content)
    if not config.set_timing_cache(cache, False):
        log.warning("the timing cache is of another GPU or version: every layer is timed anew")
        cache = config.create_timing_cache(b"")
        if not config.set_timing_cache(cache, False):
            raise ExportError("TensorRT refuses an empty timing cache")
    return cache


def _add_profile(builder: Any, config: Any, network: Any, shapes: Mapping[str, InputProfile]) -> None:
    """Check the parsed network's inputs against the profile and set it."""
    there = {network.get_input(index).name for index in range(network.num_inputs)}
    if there != set(shapes):
        raise ExportError(f"the parsed network has inputs {sorted(there)}, the contract {sorted(shapes)}")
    profile = builder.create_optimization_profile()
    for name, entry in shapes.items():
        profile.set_shape(name, entry.least, entry.usual, entry.most)
    if config.add_optimization_profile(profile) < 0:
        raise ExportError(f"TensorRT refuses the profile {dict(shapes)}")


def _logger(trt: Any) -> Any:
    """Return a logger that forwards TensorRT's messages to this package's log."""
    levels = {
        trt.ILogger.INTERNAL_ERROR: logging.ERROR,
        trt.ILogger.ERROR: logging.ERROR,
        trt.ILogger.WARNING: logging.WARNING,
        trt.ILogger.INFO: logging.INFO,
        trt.ILogger.VERBOSE: logging.DEBUG,
    }

    class Logger(trt.ILogger):  # type: ignore[misc]  # made at run time
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            log.log(levels.get(severity, logging.INFO), "TensorRT: %s", msg)

    return Logger()


def _monitor(trt: Any, progress: BuildProgress | None, cancelled: Callable[[], bool]) -> Any:
    """Return a monitor that reports progress and ends a cancelled build; Ctrl-C cannot interrupt TensorRT."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # made at run time
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._lock = threading.Lock()

        def phase_start(self, phase_name: str, parent_phase: str, num_steps: int) -> None:  # noqa: ARG002 (TensorRT's)
            if progress is not None:
                with self._lock:
                    progress.phase(phase_name, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if progress is not None:
                with self._lock:
                    progress.step(phase_name, step)
            return not cancelled()

        def phase_finish(self, phase_name: str) -> None:
            if progress is not None:
                with self._lock:
                    progress.phase_done(phase_name)

    return Monitor()
