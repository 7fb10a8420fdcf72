"""Plots: that they are there, and show what was asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from heartvoice.evaluation.cases import find_cases
from heartvoice.evaluation.harness import Evaluation, Evidence, Side, evaluate_case
from heartvoice.evaluation.plots import SHOWN_S, draw, shown
from tests.fakes.judges import RATE_HZ, judges, tone, write_case


def case(folder: Path) -> tuple[Evaluation, Evidence]:
    (found,) = find_cases(write_case(folder, voice=tone(200), source=tone(1000), result=tone(210)))
    return evaluate_case(found, judges())


@pytest.mark.slow
def test_three_plots_are_written_and_replaced(tmp_path: Path) -> None:
    made, evidence = case(tmp_path / "case")
    for _ in range(2):
        paths = draw(made, evidence, tmp_path / "out" / "case")
        assert sorted(path.name for path in (tmp_path / "out" / "case").iterdir()) == sorted(
            path.name for path in paths
        )
        assert [path.name for path in paths] == ["f0.png", "mels.png", "similarity.png"]
        assert all(path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n") for path in paths)


@pytest.mark.slow
def test_what_was_not_measured_is_not_drawn(tmp_path: Path) -> None:
    made, evidence = case(tmp_path / "case")
    made.similarity = {}
    silent = replace(evidence.after, contour=None)
    assert [path.name for path in draw(made, replace(evidence, after=silent), tmp_path)] == ["mels.png"]


def heard(seconds: float, voiced: slice) -> Side:
    contour = np.zeros(round(seconds * 100) + 1, np.float32)
    contour[voiced] = 220.0
    return Side(np.zeros(round(seconds * RATE_HZ), np.float32), None, contour)


def test_of_a_long_recording_the_stretch_with_most_singing_is_shown() -> None:
    before, after = heard(100.0, slice(3000, 6500)), heard(100.0, slice(4000, 9000))
    start_s, end_s = shown(before, after)
    assert 40.0 <= start_s <= 45.0
    assert end_s - start_s == SHOWN_S


def test_a_short_recording_is_shown_whole() -> None:
    side = heard(7.0, slice(0, 100))
    assert shown(side, side) == (0.0, 7.0)
