"""A gateway in front of the clients' fake server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.server import FakeServer
from tests.support.callers import certificates, server  # noqa: F401
from tests.support.gateways import RunningGateway, Stub, running
from tests.support.voices import registry  # noqa: F401


@pytest.fixture
def gateway(server: FakeServer) -> Iterator[RunningGateway]:  # noqa: F811
    with running(server.url) as made:
        yield made


@pytest.fixture
def stub(gateway: RunningGateway) -> Iterator[Stub]:
    with Stub(gateway.url) as made:
        yield made
