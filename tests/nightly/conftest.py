"""Fixtures of tests against real servers."""

from tests.support.served import _info_logs, client, metrics  # noqa: F401
