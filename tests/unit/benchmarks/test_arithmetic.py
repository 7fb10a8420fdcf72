"""Counted costs against the tables of the specs."""

from __future__ import annotations

import pytest

from benchmarks.arithmetic import decoder_flop, flow_flop, frame_bytes, prefill_flop
from heartvoice.config.presets import PRESETS

OFFICIAL = PRESETS["oss-3b"]


def test_bytes_of_a_frame_are_those_of_the_spec() -> None:
    read = frame_bytes(OFFICIAL.lm, positions=1500, rows=2, weight_bytes=2, cache_bytes=2)
    assert read.backbone == pytest.approx(5.637e9, rel=1e-3)
    assert read.depth == pytest.approx(4.360e9 + 0.132e9, rel=1e-3)
    assert read.heads == pytest.approx(0.050e9 + 0.353e9, rel=2e-3)
    assert read.cache == pytest.approx(0.344e9, rel=1e-3)
    assert read.total == pytest.approx(10.88e9, rel=1e-3)


def test_operations_are_those_of_the_spec() -> None:
    assert prefill_flop(OFFICIAL.lm, positions=300, rows=2) / 300 == pytest.approx(11.3e9, rel=0.01)
    assert 10 * flow_flop(OFFICIAL.codec, frames=744, rows=2) == pytest.approx(44.2e12, rel=2e-3)
    assert decoder_flop(OFFICIAL.codec, frames=744) == pytest.approx(3.43e12, rel=1e-3)
