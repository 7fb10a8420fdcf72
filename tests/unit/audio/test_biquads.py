from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import butter, sosfilt

from heartvoice.audio.biquads import Biquads

SECTIONS = butter(6, [40.0, 9000.0], "bandpass", fs=44_100, output="sos")


@pytest.mark.parametrize("cuts", [[], [1, 2, 5], [4410, 4410, 20_000]], ids=str)
def test_blocks_are_filtered_as_scipy_filters_the_whole(cuts: list[int]) -> None:
    audio = np.random.default_rng(0).standard_normal((2, 40_000)).astype(np.float32)
    filters = Biquads(SECTIONS, 2)
    filtered = np.concatenate([filters.push(block) for block in np.split(audio, cuts, axis=1)], axis=1)
    assert filtered.dtype == np.float64
    assert np.abs(filtered - sosfilt(SECTIONS, audio.astype(np.float64))).max() < 1e-11


def test_nothing_comes_of_nothing() -> None:
    assert Biquads(SECTIONS, 2).push(np.zeros((2, 0))).shape == (2, 0)


def test_a_section_that_is_not_normalised_is_refused() -> None:
    with pytest.raises(ValueError, match="a0 = 1"):
        Biquads(2 * SECTIONS, 1)
