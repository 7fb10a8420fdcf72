"""The networks of a job: each call is checked first, and a cancelled job calls none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from heartvoice.arrays import Array
from heartvoice.errors import RequestCancelledError
from heartvoice.runtime.networks import JobNetworks
from tests.support.cancelling import networks_until


class Echo:
    """Returns its inputs, and notes its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Sequence[str] | None]] = []

    def run(self, name: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        self.calls.append((name, outputs))
        return dict(inputs)


def test_calls_pass_through_with_their_outputs() -> None:
    echo = Echo()
    value = np.arange(3)
    assert JobNetworks(echo).run("net", {"x": value}, ["x"])["x"] is value
    assert echo.calls == [("net", ["x"])]


def test_a_cancelled_job_runs_no_network() -> None:
    echo = Echo()
    networks = networks_until(echo, lambda: len(echo.calls) == 2)
    for _ in range(2):
        networks.run("net", {})
    for _ in range(2):
        with pytest.raises(RequestCancelledError):
            networks.run("net", {})
    assert len(echo.calls) == 2
