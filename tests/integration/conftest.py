"""What the tests against real servers share; the session's server is in the conftest above."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from heartvoice.client import Client
from heartvoice.embedded.server import EmbeddedServer, ServerOptions, free_port
from heartvoice.repository import Repository
from tests.integration.raw import Metrics


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.triton)


@pytest.fixture
def new_server(repository: Repository, tmp_path: Path) -> Iterator[Callable[..., EmbeddedServer]]:
    """Makes a server of the test's own, to be treated badly."""
    servers: list[EmbeddedServer] = []

    def make(root: Path | None = None, **options: object) -> EmbeddedServer:
        chosen = {"log_path": tmp_path / f"server{len(servers)}.log", "drain_s": 20.0} | options
        servers.append(EmbeddedServer(ServerOptions(root or repository.root, free_port(), free_port(), **chosen)))  # type: ignore[arg-type]
        servers[-1].start()
        return servers[-1]

    yield make
    for server in servers:
        server.stop()


@pytest.fixture
def client(server: EmbeddedServer) -> Iterator[Client]:
    with Client(server.url) as made:
        yield made


@pytest.fixture
def metrics(server: EmbeddedServer) -> Metrics:
    return Metrics(server.metrics_url)


@pytest.fixture(autouse=True)
def _info_logs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "heartvoice")
