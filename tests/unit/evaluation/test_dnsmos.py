"""DNSMOS: windows, and the published package's own numbers."""

from __future__ import annotations

import numpy as np
import pytest

from heartvoice.evaluation.dnsmos import MAX_WINDOWS, STEP, WINDOW, Dnsmos
from tests.fakes.judges import Scores


def starts(n_samples: int) -> list[int]:
    """Where the windows of a recording that counts its samples begin."""
    scores = Scores()
    Dnsmos(scores).rate((np.arange(n_samples) / 2**24).astype(np.float32))  # exact in float32, and below full scale
    return [round(float(window[0]) * 2**24) for window in scores.windows]


def test_windows_begin_every_second() -> None:
    assert starts(WINDOW) == [0]
    assert starts(WINDOW + STEP - 1) == [0]
    assert starts(WINDOW + 2 * STEP) == [0, STEP, 2 * STEP]


def test_of_a_long_recording_some_windows_are_heard_from_end_to_end() -> None:
    heard = starts(WINDOW + 100 * STEP)
    assert len(heard) == MAX_WINDOWS
    assert heard[0] == 0
    assert heard[-1] == 100 * STEP
    assert max(np.diff(heard)) <= 4 * STEP


def test_a_short_recording_is_heard_over_and_over() -> None:
    scores = Scores()
    Dnsmos(scores).rate(np.arange(3, dtype=np.float32) / 4)
    assert np.array_equal(scores.windows[0][:7], np.array([0, 1, 2, 0, 1, 2, 0]) / 4)


def test_what_exceeds_full_scale_is_turned_down() -> None:
    scores = Scores()
    Dnsmos(scores).rate(np.array([0.5, -4.0], np.float32))
    assert np.array_equal(scores.windows[0][:2], [0.125, -1.0])


def test_the_networks_values_become_opinions() -> None:
    opinion = Dnsmos(Scores()).rate(np.ones(10, np.float32))
    assert opinion.signal == pytest.approx(-0.08397278 * 9 + 1.22083953 * 3 + 0.0052439)
    assert opinion.background == pytest.approx(-0.13166888 * 9 + 1.60915514 * 3 - 0.39604546)
    assert opinion.overall == pytest.approx(-0.06766283 * 9 + 1.11546468 * 3 + 0.04602535)
