"""Plots: that they are there, and show what was asked for."""

from __future__ import annotations

import numpy as np

from heartvoice.evaluation.harness import Side
from heartvoice.evaluation.plots import SHOWN_S, shown
from tests.fakes.judges import RATE_HZ


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
