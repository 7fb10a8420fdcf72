"""Checks of jobs that tests cancel."""

from __future__ import annotations

from collections.abc import Callable

from heartvoice.errors import RequestCancelledError
from heartvoice.runtime.networks import Check, JobNetworks, Networks


def cancelled_when(condition: Callable[[], bool]) -> Check:
    """A check that raises as soon as the condition holds."""

    def check() -> None:
        if condition():
            raise RequestCancelledError("cancelled by the test")

    return check


def networks_until(networks: Networks, condition: Callable[[], bool]) -> JobNetworks:
    """The networks of a job that is cancelled as soon as the condition holds."""
    return JobNetworks(networks, cancelled_when(condition))
