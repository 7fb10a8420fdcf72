"""A fake server for each test, and both clients behind one face."""

from __future__ import annotations

import pytest

from heartvoice.client import aio_base_client, base_client
from tests.support.callers import caller, certificates, folder, server  # noqa: F401
from tests.support.voices import registry  # noqa: F401


@pytest.fixture(autouse=True)
def _short_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake server has more at any time: a client that leaves need not read for its full time."""
    for module in (base_client, aio_base_client):
        monkeypatch.setattr(module, "DRAIN_TIMEOUT_S", 0.3)
