"""A gateway in front of the clients' fake server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.client.conftest import certificates, server  # noqa: F401
from tests.client.fake_server import FakeServer
from tests.gateways import RunningGateway, running


@pytest.fixture
def gateway(server: FakeServer) -> Iterator[RunningGateway]:  # noqa: F811
    with running(server.url) as made:
        yield made
