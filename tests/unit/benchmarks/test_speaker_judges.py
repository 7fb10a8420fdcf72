"""The threshold of equal error, and the pairs it is of."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.speaker_judges import equal_error, pairs


@pytest.mark.parametrize(
    ("same", "different", "threshold", "rate"),
    [
        ([0.8, 0.9], [0.1, 0.2], 0.5, 0.0),  # in the middle of the gap
        ([0.4, 0.8, 0.9, 0.95], [0.1, 0.2, 0.3, 0.5], 0.45, 0.25),
        ([0.1], [0.9], 0.5, 1.0),
    ],
)
def test_threshold_of_equal_error(same: list[float], different: list[float], threshold: float, rate: float) -> None:
    np.testing.assert_allclose(equal_error(same, different), (threshold, rate), atol=1e-9)


def test_equal_error_of_two_normal_distributions_is_where_they_cross() -> None:
    rng = np.random.default_rng(0)
    threshold, rate = equal_error(list(rng.normal(0.8, 0.1, 4000)), list(rng.normal(0.5, 0.1, 4000)))
    assert threshold == pytest.approx(0.65, abs=0.01)
    assert rate == pytest.approx(0.0668, abs=0.01)  # of 1.5 deviations


def test_pairs_of_one_index_are_one_voice() -> None:
    same, different = pairs([np.eye(2, dtype=np.float32)[i] for i in (0, 1)], [np.eye(2, dtype=np.float32)[0]] * 2)
    assert same == [1.0, 0.0]
    assert sorted(different) == [0.0, 1.0]
