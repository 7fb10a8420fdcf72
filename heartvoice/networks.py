"""The one protocol by which stages reach networks, served or not."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Protocol

from heartvoice.engines import Array, Engine, OnnxEngine, default_device
from heartvoice.repository import Repository


class Networks(Protocol):
    """Networks by name: BLS calls when served, engines in this process elsewhere."""

    def run(self, name: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run the network `name` once.

        Raises:
            EngineError: the network failed.
            ModelUnavailableError: it is not loaded, or its process has died.
        """
        ...


class LocalNetworks:
    """In-process engines over an exported repository, each loaded at its first use, on `engines.default_device`."""

    def __init__(self, repository: Repository, *, threads: int | None = None) -> None:
        self._repository = repository
        self._threads = threads
        self._engines: dict[str, Engine] = {}
        self._lock = threading.Lock()

    def engine(self, name: str) -> Engine:
        """The engine of one network."""
        with self._lock:
            if name not in self._engines:
                graph = self._repository.intact_graph(name)
                self._engines[name] = OnnxEngine(graph, threads=self._threads, device=default_device())
            return self._engines[name]

    def load(self, *names: str) -> None:
        """Load these networks now, so that a broken graph fails here and not in the first job."""
        for name in names:
            self.engine(name)

    def run(self, name: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run the network `name` once in this process."""
        return self.engine(name).run(inputs, outputs)
