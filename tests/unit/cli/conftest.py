"""Fixtures of the commands: a fake server of songs, a fake hub of weights, a gateway."""

from tests.support.callers import certificates, folder, server  # noqa: F401
from tests.support.hub import hub, weights  # noqa: F401
from tests.unit.gateway.conftest import gateway  # noqa: F401
