"""What the tests against real servers share; the session's server is in the conftest above."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from heartvoice.client import Client
from heartvoice.server.server import EmbeddedServer
from tests.support.raw import Metrics


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents and not item.get_closest_marker("faults"):
            item.add_marker(pytest.mark.triton)


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
