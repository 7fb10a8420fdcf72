"""Random weights of the `tiny` networks, run."""

from __future__ import annotations

from tests.unit.checkpoints.test_random_init import TINY, check_codec, check_lm


def test_tiny_networks_are_alive() -> None:
    check_lm(TINY, 24)
    check_codec(TINY)
