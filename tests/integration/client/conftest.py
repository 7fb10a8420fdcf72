"""What tests/unit/client has: a fake server for each test, and both clients behind one face."""

from tests.support.callers import caller, certificates, folder, server  # noqa: F401
from tests.unit.client.conftest import _short_drain  # noqa: F401
