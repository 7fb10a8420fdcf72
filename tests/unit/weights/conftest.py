"""A fake hub of weights."""

from tests.support.hub import hub, weights  # noqa: F401
