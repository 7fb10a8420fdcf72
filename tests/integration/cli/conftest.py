"""One exported `tiny` repository for all tests of the export; for the others what tests/unit/cli has."""

from tests.support.callers import certificates, folder, server  # noqa: F401
from tests.support.exports import repository, tiny_weights  # noqa: F401
from tests.support.hub import hub, weights  # noqa: F401
