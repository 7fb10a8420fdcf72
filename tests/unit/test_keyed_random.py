"""Addressed random numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from heartvoice import keyed_random

Draw = Callable[[int, str, int, tuple[int, ...]], npt.NDArray[np.float32]]


def test_uniform_values_are_pinned_for_ever() -> None:
    expected = np.array([[5872270, 464663, 6304316, 3670927]], np.float32) / 2**23
    np.testing.assert_array_equal(keyed_random.uniform(7, "lm", 3, (1, 4)), expected)


def test_normal_values_are_pinned_to_the_last_bits() -> None:
    # Logarithms and sines may differ by a last bit between machines.
    np.testing.assert_allclose(
        keyed_random.normal(7, "codec", 3, (4,)),
        [0.9776775240898132, 0.4728938937187195, -0.7184237241744995, -0.1320326179265976],
        rtol=1e-6,
    )


def test_values_do_not_depend_on_what_was_drawn_before() -> None:
    first = [keyed_random.normal(1, "codec", index, (3, 2)) for index in range(4)]
    again = [keyed_random.normal(1, "codec", index, (3, 2)) for index in reversed(range(4))]
    np.testing.assert_array_equal(first, again[::-1])


@pytest.mark.parametrize("draw", [keyed_random.uniform, keyed_random.normal])
def test_every_part_of_the_address_matters(draw: Draw) -> None:
    addresses = [
        (0, "lm", 0),
        (1, "lm", 0),
        (0, "codec", 0),
        (0, "lm", 1),
        (-1, "lm", 0),
        (2**63, "lm", 0),
        (0, "lm/", 0),
    ]
    draws = {tuple(draw(*address, (8,)).tolist()) for address in addresses}
    assert len(draws) == len(addresses)


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_a_longer_draw_begins_with_the_shorter_one(count: int) -> None:
    for draw in (keyed_random.uniform, keyed_random.normal):
        np.testing.assert_array_equal(draw(5, "svc", 2, (count,)), draw(5, "svc", 2, (9,))[:count])


def test_uniform_stays_below_one_with_23_bits() -> None:
    values = keyed_random.uniform(0, "lm", 0, (200, 1000))
    assert values.dtype == np.float32
    assert values.min() >= 0
    assert values.max() <= keyed_random.UNIFORM_MAX
    scaled = values.astype(np.float64) * 2**23
    np.testing.assert_array_equal(scaled, np.floor(scaled))
    assert abs(values.mean(dtype=np.float64) - 0.5) < 0.003
    assert abs(values.var(dtype=np.float64) - 1 / 12) < 0.001


def test_the_largest_uniform_times_a_sum_stays_below_the_sum() -> None:
    sums = np.concatenate(
        [np.float32(2.0) ** np.arange(-20, 20), keyed_random.uniform(1, "sums", 0, (10_000,)) + np.float32(1e-6)]
    )
    assert (np.float32(keyed_random.UNIFORM_MAX) * sums.astype(np.float32) < sums).all()


def test_normal_is_standard_and_uncorrelated() -> None:
    values = keyed_random.normal(0, "codec", 0, (500, 1000)).astype(np.float64)
    assert np.isfinite(values).all()
    assert abs(values.mean()) < 0.005
    assert abs(values.var() - 1) < 0.01
    assert abs((values**4).mean() - 3) < 0.05
    flat = values.reshape(-1)
    assert abs((flat[1:] * flat[:-1]).mean()) < 0.005


def test_an_empty_shape_gives_nothing() -> None:
    assert keyed_random.normal(0, "codec", 0, (0, 4)).shape == (0, 4)
    assert keyed_random.uniform(0, "codec", 0, ()).shape == ()
