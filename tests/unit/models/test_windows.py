"""Window arithmetic, the solver and the joins, against the spec's numbers and plain loops."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch

from heartvoice import keyed_random
from heartvoice.config.presets import PRESETS
from heartvoice.contracts.constants import DECODER_HISTORY, DECODER_LOOKAHEAD
from heartvoice.errors import InvalidRequestError
from heartvoice.models.heartcodec.solver import euler
from heartvoice.models.heartcodec.windows import WindowPlan, crossfade, decoder_context, join_windows


def test_default_lengths_are_the_spec_s() -> None:
    plan = WindowPlan()
    assert (plan.window, plan.hop, plan.overlap) == (372, 320, 52)
    assert (plan.latent_window, plan.latent_overlap) == (744, 104)
    assert PRESETS["oss-3b"].codec.frame_hop * plan.overlap == 199_680


def test_the_shortest_window_is_one_unit() -> None:
    plan = WindowPlan(93)
    assert (plan.hop, plan.overlap) == (80, 13)


@pytest.mark.parametrize("window", [0, -93, 92, 125, 373])
def test_other_windows_are_refused(window: int) -> None:
    with pytest.raises(InvalidRequestError, match=f"multiple of 93 codes .* got {window}"):
        WindowPlan(window)


@pytest.mark.parametrize("n_codes", [0, -1])
def test_an_empty_song_is_refused(n_codes: int) -> None:
    with pytest.raises(InvalidRequestError, match="codes: expected at least one frame"):
        WindowPlan().n_windows(n_codes)


@pytest.mark.parametrize("window", [93, 186, 279, 372])
def test_every_length_is_covered_by_the_formula_of_the_spec(window: int) -> None:
    plan = WindowPlan(window)
    for n_codes in range(1, 5 * window):
        filled = max(n_codes, window)
        padded = math.ceil((filled - plan.overlap) / plan.hop) * plan.hop + plan.overlap
        assert plan.padded(n_codes) == padded >= n_codes
        starts = [start for start in range(0, padded, plan.hop) if start <= padded - plan.hop]
        assert [plan.start(index) for index in range(plan.n_windows(n_codes))] == starts


@pytest.mark.parametrize("n_codes", [424, 744, 1064])
def test_lengths_whose_tail_the_reference_loses_get_their_window(n_codes: int) -> None:
    assert WindowPlan().padded(n_codes) >= n_codes
    assert WindowPlan().n_windows(n_codes) == (n_codes - 52 + 319) // 320


@pytest.mark.parametrize("n_codes", [1, 5, 371, 372, 373, 424, 700, 1100])
def test_windows_fill_up_with_the_beginning_of_the_song(n_codes: int) -> None:
    plan = WindowPlan()
    song = np.arange(2 * n_codes).reshape(2, n_codes)
    endless = np.tile(song, (1, plan.padded(n_codes) // n_codes + 1))
    for index in range(plan.n_windows(n_codes)):
        expected = endless[:, plan.start(index) : plan.start(index) + plan.window]
        np.testing.assert_array_equal(plan.codes(song, index), expected)


def test_a_window_that_is_whole_does_not_need_the_rest_of_the_song() -> None:
    plan, song = WindowPlan(93), np.arange(8 * 400).reshape(8, 400)
    for index in range(4):
        ready = plan.ready_at(index)
        np.testing.assert_array_equal(plan.codes(song[:, :ready], index), plan.codes(song, index))
    assert plan.ready_at(4, 400) == 400


def test_crossfade_is_linear_and_keeps_what_agrees() -> None:
    ones = np.ones((2, 5), np.float32)
    np.testing.assert_allclose(crossfade(ones, 0 * ones)[0], [1, 0.75, 0.5, 0.25, 0])
    np.testing.assert_array_equal(crossfade(ones, ones), ones)


def test_joined_windows_lie_where_they_belong() -> None:
    song = keyed_random.normal(0, "audio", 0, (2, 500))
    windows = [song[:, start : start + 200] for start in (0, 150, 300)]
    pieces = list(join_windows(iter(windows), 50))
    assert [piece.shape[1] for piece in pieces] == [150, 150, 150, 50]
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), song, atol=1e-6)


def test_decoder_context_is_the_contract_s_at_full_size() -> None:
    assert decoder_context(PRESETS["oss-3b"].codec) == (DECODER_HISTORY, DECODER_LOOKAHEAD)
    assert decoder_context(PRESETS["mid"].codec) == (DECODER_HISTORY, DECODER_LOOKAHEAD)


def test_solver_gives_the_same_for_numpy_and_torch_and_keeps_its_inputs() -> None:
    start, known = keyed_random.normal(0, "z", 0, (1, 6, 4)), keyed_random.normal(0, "c", 0, (1, 6, 4))
    known[:, 3:] = 0
    before = start.copy()

    def velocity(x: npt.NDArray[np.float32], t: float) -> npt.NDArray[np.float32]:
        return -x * np.float32(t) + 1

    ours = euler(start, known, 3, 7, velocity)
    theirs = euler(torch.from_numpy(start), torch.from_numpy(known), 3, 7, lambda x, t: -x * t + 1)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-6)
    np.testing.assert_array_equal(start, before)
    np.testing.assert_array_equal(ours[:, :3], known[:, :3])


def test_solver_visits_equal_times_and_never_one() -> None:
    times: list[float] = []

    def velocity(x: npt.NDArray[np.float32], t: float) -> npt.NDArray[np.float32]:
        times.append(t)
        return x * 0 + 2

    state = euler(np.zeros((1, 2, 1), np.float32), np.zeros((1, 2, 1), np.float32), 0, 10, velocity)
    np.testing.assert_allclose(times, np.arange(10) / 10, atol=1e-6)
    np.testing.assert_allclose(state, 2, atol=1e-5)
