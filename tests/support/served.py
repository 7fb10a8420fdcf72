"""Fixtures of tests against real servers; the session's server is in tests/conftest.py."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from heartvoice.client import Client
from heartvoice.server.server import EmbeddedServer
from tests.support.raw import Metrics


@pytest.fixture
def client(server: EmbeddedServer) -> Iterator[Client]:
    """A client of the session's server."""
    with Client(server.url) as made:
        yield made


@pytest.fixture
def metrics(server: EmbeddedServer) -> Metrics:
    """The session's server's metrics."""
    return Metrics(server.metrics_url)


@pytest.fixture(autouse=True)
def _info_logs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "heartvoice")
