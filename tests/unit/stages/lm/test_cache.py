"""The packed cache against rows kept one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heartvoice.errors import EngineError
from heartvoice.stages.lm.cache import WIDTH_BLOCK, RowCache, cache_bytes, round_up
from tests.fakes.networks import tiny

SIZES = tiny().lm.backbone
COME = st.tuples(st.just("come"), st.integers(1, 2), st.sampled_from([1, 30, 63, 64, 65, 130]))
GO = st.tuples(st.just("go"), st.integers(0, 7), st.integers(1, 2))
GROW = st.tuples(st.just("grow"), st.integers(1, 3), st.none())


def outputs(cache: RowCache, rows: int, length: int, first: float) -> dict[str, np.ndarray]:
    """Numbers that say where they belong."""
    shape = (rows, SIZES.num_kv_heads, length, SIZES.head_dim)
    values = first + np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    return {name: values + 0.25 * index for index, name in enumerate(cache.new_names)}


@settings(max_examples=20, deadline=None)
@given(st.lists(st.one_of(COME, GO, GROW), min_size=1, max_size=14))
def test_rows_keep_their_values_wherever_they_move(events: list[tuple[str, int, int]]) -> None:
    cache = RowCache(SIZES, cache_bytes(SIZES, rows=2 * len(events), positions=256))
    rows: list[dict[str, np.ndarray]] = []
    for number, (event, first, second) in enumerate(events):
        if event == "come":
            new = outputs(cache, first, second, 1e4 * number)
            cache.append_rows(new, second)
            rows += [{name: value[row] for name, value in new.items()} for row in range(first)]
        elif event == "go":
            count = min(second, max(len(rows) - first, 0))
            if count:
                cache.remove_rows(first, count)
                del rows[first : first + count]
        elif rows:
            for step in range(first):
                new = outputs(cache, len(rows), 1, 1e4 * number + 1e3 * step)
                cache.append_position(new)
                for row, kept in enumerate(rows):
                    for name, value in new.items():
                        kept[name] = np.concatenate([kept[name], value[row]], axis=1)
        longest = max((kept["k_new_0"].shape[1] for kept in rows), default=0)
        assert cache.lengths.tolist() == [kept["k_new_0"].shape[1] for kept in rows]
        for name, array in cache.arrays.items():
            assert array.flags.c_contiguous
            assert array.shape == (len(rows), SIZES.num_kv_heads, round_up(longest, WIDTH_BLOCK), SIZES.head_dim)
            for row, kept in enumerate(rows):
                value = kept[name.replace("past", "new")]
                np.testing.assert_array_equal(array[row, :, : value.shape[1]], value)
                assert not array[row, :, round_up(value.shape[1], WIDTH_BLOCK) :].any()


def test_nans_of_a_row_that_left_are_gone() -> None:
    """A row's memory is used again, and NaN there would survive its weight of 0."""
    cache = RowCache(SIZES, cache_bytes(SIZES, rows=4, positions=128))
    shape = (2, SIZES.num_kv_heads, 100, SIZES.head_dim)
    cache.append_rows({name: np.full(shape, np.nan, np.float32) for name in cache.new_names}, 100)
    cache.remove_rows(0, 2)
    for length in (40, 70):
        cache.append_rows({name: np.ones(shape, np.float32) for name in cache.new_names}, length)
    assert all(np.isfinite(array).all() for array in cache.arrays.values())


def test_more_than_the_memory_is_our_mistake() -> None:
    cache = RowCache(SIZES, cache_bytes(SIZES, rows=1, positions=64))
    cache.append_rows(outputs(cache, 1, 64, 0), 64)
    with pytest.raises(EngineError, match="within the limit"):
        cache.append_position(outputs(cache, 1, 1, 0))
