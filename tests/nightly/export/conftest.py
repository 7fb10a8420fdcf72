"""One exported `tiny` repository for all tests of the export."""

from tests.support.exports import repository, tiny_weights  # noqa: F401
