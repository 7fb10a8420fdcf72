"""One real server over the exported tiny repository for the whole session."""

from __future__ import annotations

import logging
from collections.abc import Iterator
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


@pytest.fixture(scope="session")
def server(repository: Repository, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    log = tmp_path_factory.mktemp("server") / "server.log"
    with EmbeddedServer(ServerOptions(repository.root, free_port(), free_port(), log_path=log)) as running:
        yield running


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
