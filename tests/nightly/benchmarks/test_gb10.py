"""Quick runs of the benchmark that `tests/unit/benchmarks/test_gb10.py` tests in parts."""

from __future__ import annotations

import re

import pytest

from benchmarks import gb10
from heartvoice.server.profiles import GB10
from tests.unit.benchmarks.test_gb10 import OFFICIAL, TEXT


def test_doc_has_the_derived_tables() -> None:
    assert gb10.filled(TEXT, gb10.tables(OFFICIAL, GB10)) == TEXT, "run python -m benchmarks.gb10 --write"


def test_operations_are_those_of_the_specs() -> None:
    works = {work.name: work for work in gb10.song_work(OFFICIAL, 30.0)}
    amount = re.search(r"(\d+) GFLOP", works["vocoder"].amount)
    assert amount
    assert int(amount[1]) == pytest.approx(316, rel=0.01)
    f0 = re.search(r"([\d.]+) GFLOP", works["F0"].amount)
    assert f0
    assert float(f0[1]) == pytest.approx(7.1, rel=0.02)
