"""The one protocol by which stages reach networks, served or not."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from heartvoice.arrays import Array
from heartvoice.errors import EngineError
from heartvoice.runtime.engines import Engine, OnnxEngine, default_device
from heartvoice.runtime.repository import Repository

ENGINES = ("onnxruntime", "tensorrt")

Check = Callable[[], None]
"""Raises RequestCancelledError if the job was cancelled, and returns otherwise."""


def never_cancelled() -> None:
    """The check of a job that nobody can cancel."""


class Networks(Protocol):
    """Networks by name: BLS calls when served, engines in this process elsewhere."""

    def run(self, name: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run the network `name` once.

        Raises:
            EngineError: the network failed.
            ModelUnavailableError: it is not loaded, or its process has died.
        """
        ...


def run_finite(networks: Networks, name: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Run the network `name` once, and refuse results that hold NaN or infinite values.

    Every stage runs its networks by this: weights that overflow in half precision, or that belong to another network,
    must not end as samples.

    Raises:
        EngineError: the network failed, or a result is not finite; names network and output.
    """
    results = networks.run(name, inputs)
    for output, value in results.items():
        if not np.isfinite(value).all():
            raise EngineError(f"{name}: {output}: expected finite values, got NaN or Inf")
    return results


def check_size(name: str, value: Array, most: float) -> None:
    """Refuse results beyond +-`most`, which only a failed network makes.

    Raises:
        EngineError: names the network and the largest value.
    """
    largest = float(np.abs(value).max(initial=0.0))
    if not largest <= most:
        raise EngineError(f"{name}: expected values within +-{most:g}, got {largest:.4g}")


class JobNetworks:
    """The networks of one job. Each call first checks whether the job was cancelled."""

    def __init__(self, networks: Networks, check: Check = never_cancelled) -> None:
        """Bind the job's cancellation to its networks.

        Args:
            networks: run the calls.
            check: called before each of them, in the calling thread.
        """
        self._networks, self.check = networks, check

    def run(self, name: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run the network `name` once, unless the job was cancelled.

        Raises:
            RequestCancelledError: the job was cancelled; the network did not run.
        """
        self.check()
        return self._networks.run(name, inputs, outputs)


class LocalNetworks:
    """In-process engines over an exported repository, each loaded at its first use, on `engines.default_device`."""

    def __init__(self, repository: Repository, *, threads: int | None = None, engine: str = "onnxruntime") -> None:
        """Open nothing yet.

        Args:
            repository: exported.
            threads: of onnxruntime.
            engine: "onnxruntime", or "tensorrt": plans for this machine's GPU, never run on one yet.

        Raises:
            EngineError: there is no such engine.
        """
        if engine not in ENGINES:
            raise EngineError(f"engine: expected one of {', '.join(ENGINES)}, got {engine!r}")
        self._engine_name = engine
        self._repository = repository
        self._threads = threads
        self._engines: dict[str, Engine] = {}
        self._lock = threading.Lock()

    def engine(self, name: str) -> Engine:
        """The engine of one network."""
        with self._lock:
            if name not in self._engines:
                self._engines[name] = self._open(name)
            return self._engines[name]

    def _open(self, name: str) -> Engine:
        if self._engine_name == "tensorrt":
            from heartvoice.runtime.tensorrt_engine import open_tensorrt

            return open_tensorrt(self._repository, name)
        return OnnxEngine(self._repository.intact_graph(name), threads=self._threads, device=default_device())

    def load(self, *names: str) -> None:
        """Load these networks now, so that a broken graph fails here and not in the first job."""
        for name in names:
            self.engine(name)

    def run(self, name: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run the network `name` once in this process."""
        return self.engine(name).run(inputs, outputs)

    def release_memory(self) -> None:
        """Give back what the engines keep for their next run."""
        with self._lock:
            engines = list(self._engines.values())
        for engine in engines:
            if isinstance(engine, OnnxEngine):
                engine.release_memory()
