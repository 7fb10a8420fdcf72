"""Settings of the whole suite."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from heartvoice.embedded.server import EmbeddedServer
    from heartvoice.repository import Repository

# Tiny networks on a busy machine: a second thread costs more than it gives, and spinning starves the other processes.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# As in heartvoice.embedded: a test process has servers and calls of gRPC under way when it starts commands.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny preset, exported with random weights. Not to be changed by a test."""
    from heartvoice.export.repository import export_repository
    from heartvoice.export.weights import random_weights
    from heartvoice.presets import PRESETS

    root = tmp_path_factory.mktemp("exported") / "tiny"
    export_repository(random_weights(PRESETS["tiny"], 0), root)
    return root


@pytest.fixture(scope="session")
def repository(exported: Path) -> Repository:
    from heartvoice.repository import Repository

    return Repository(exported)


@pytest.fixture
def new_server(repository: Repository, tmp_path: Path) -> Iterator[Callable[..., EmbeddedServer]]:
    """Makes a server of the test's own, to be treated badly."""
    from heartvoice.embedded.server import EmbeddedServer, ServerOptions, free_port

    servers: list[EmbeddedServer] = []

    def make(root: Path | None = None, **options: object) -> EmbeddedServer:
        chosen = {"log_path": tmp_path / f"server{len(servers)}.log", "drain_s": 20.0} | options
        servers.append(EmbeddedServer(ServerOptions(root or repository.root, free_port(), free_port(), **chosen)))  # type: ignore[arg-type]
        servers[-1].start()
        return servers[-1]

    yield make
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def server(repository: Repository, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """One real server of all models, for the whole session. Not to be hurt by a test."""
    from heartvoice.embedded.server import EmbeddedServer, ServerOptions, free_port

    log = tmp_path_factory.mktemp("server") / "server.log"
    with EmbeddedServer(ServerOptions(repository.root, free_port(), free_port(), log_path=log)) as running:
        yield running
