"""The flow's windows and what the regulator is given."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from heartvoice.config.svc import SVC_HOP
from heartvoice.errors import InvalidRequestError
from heartvoice.keyed_random import normal
from heartvoice.stages.svc.mel import n_mel_frames
from heartvoice.stages.svc.windows import WindowJoiner, nearest_index, plan_windows, regulator_inputs
from tests.support.golden_cases import GoldenFolder, assert_close, folder_params

REGULATORS, CHUNKINGS = folder_params("seed_vc/length_regulator"), folder_params("seed_vc/chunking")


# ------------------------------------------------------------------------------------------------------ nearest indices


@pytest.mark.parametrize("folder", REGULATORS)
def test_quirk_5_nearest_indices_are_float32s(folder: GoldenFolder) -> None:
    differing = 0
    for lengths, table in folder.config["nearest_index"].items():
        n_from, n_to = (int(length) for length in lengths.split("->"))
        index = nearest_index(n_from, n_to)
        assert hashlib.sha256(index.astype("<i4").tobytes()).hexdigest() == table["sha256_int32_le"], lengths
        whole_numbers = np.arange(n_to) * n_from // n_to
        assert np.flatnonzero(index != whole_numbers).tolist() == table["integer_floor_mismatches"]
        differing += len(table["integer_floor_mismatches"])
    assert differing


def test_nearest_indices_stay_inside() -> None:
    for n_from, n_to in ((1, 1), (1, 5), (5, 1), (30_001, 51_679), (3, 51_680)):
        index = nearest_index(n_from, n_to)
        assert len(index) == n_to
        assert index.min() == 0
        assert index.max() < n_from


def test_the_regulator_is_given_an_index_and_a_bin_for_every_mel_frame() -> None:
    f0 = np.repeat(np.array([0.0, 220.0]), [50, 51])
    inputs = regulator_inputs(normal(0, "content", 0, (51, 8)), f0, 87)
    assert {name: (value.shape, str(value.dtype)) for name, value in inputs.items()} == {
        "content": ((1, 51, 8), "float32"),
        "content_index": ((87,), "int64"),
        "f0_bins": ((1, 87), "int64"),
    }
    bins: Any = inputs["f0_bins"]
    assert bins[0, :43].tolist() == [1] * 43
    assert bins[0, 44:].tolist() == [60] * 43
    for content, contour, n_frames in ((0, f0, 5), (51, f0[:0], 5), (51, f0, 0)):
        with pytest.raises(InvalidRequestError, match="expected a mel frame, content and pitch"):
            regulator_inputs(np.zeros((content, 8), np.float32), contour, n_frames)


# -------------------------------------------------------------------------------------------------------------- windows


def fake_window(start: int, end: int, number: int) -> np.ndarray:
    """What the reference's stand-in for the vocoder gives, in its float32."""
    place = (start + np.arange((end - start) * SVC_HOP) / SVC_HOP).astype(np.float32)  # exact
    wave: np.ndarray = np.float32(0.5) * np.sin(np.float32(0.05) * place) + np.float32(0.1 * number)
    return wave


@pytest.mark.parametrize("folder", CHUNKINGS)
def test_windows_and_seams_are_the_references(folder: GoldenFolder) -> None:
    for case in folder.config["cases"]:
        prompt = n_mel_frames(min(case["ref_samples"], 25 * 44_100))  # quirk 20: its first 25 s
        n_frames = int(n_mel_frames(case["source_samples"]) * case["length_adjust"])
        assert (prompt, n_frames) == (case["prompt_frames"], case["cond_frames"])
        windows = plan_windows(n_frames, prompt, context=case["max_context_window"])
        found = [[window.start, window.end, window.end - window.start + prompt] for window in windows]
        assert found == case["chunks_start_end_total"]
        joiner, label = WindowJoiner(), f"case{case['case']}"
        parts = [
            joiner.add(fake_window(window.start, window.end, number), last=window.last)
            for number, window in enumerate(windows, 1)
        ]
        song = np.concatenate(parts)
        assert len(song) == case["output_samples"]
        assert_close(song[::256], folder.io[f"{label}.out_every_256"], 1e-6)
        for number, window in enumerate(windows[1:]):
            around = song[window.start * 512 - 64 : window.start * 512 + 8192 + 64 : 4]
            assert_close(around, folder.io[f"{label}.boundary{number}.samples"], 1e-6)


@pytest.mark.parametrize("n_frames", [1, 16, 17, 426, 427, 428, 838, 5000])
def test_windows_cover_the_song_and_fit_beside_the_prompt(n_frames: int) -> None:
    windows = plan_windows(n_frames, 2153)
    assert windows[0].start == 0
    assert windows[-1].end == n_frames
    assert [window.last for window in windows] == [False] * (len(windows) - 1) + [True]
    for before, after in pairwise(windows):
        assert before.end - after.start == 16
        assert after.end - after.start >= 17
    assert all(window.end - window.start <= 427 for window in windows)


def test_impossible_windows_are_refused() -> None:
    with pytest.raises(InvalidRequestError, match="vocals: expected at least 512 samples"):
        plan_windows(0, 100)
    with pytest.raises(InvalidRequestError, match="prompt of less than 2564 mel frames, got 2564"):
        plan_windows(100, 2564)


def test_equal_windows_join_to_the_song_they_were_cut_from() -> None:
    song = normal(0, "song", 0, (1000 * SVC_HOP,))
    joiner, parts = WindowJoiner(), []
    for window in plan_windows(1000, 2153):
        given = song[window.start * SVC_HOP : window.end * SVC_HOP]
        kept = given.copy()
        parts.append(joiner.add(given, last=window.last))
        assert np.array_equal(given, kept)  # the caller's window is left alone
        assert parts[-1].dtype == np.float32
    assert_close(np.concatenate(parts), song, 1e-6)


def test_a_joiner_refuses_what_it_cannot_join() -> None:
    with pytest.raises(ValueError, match=r"wave: expected at least 8192 samples .*, got 8191"):
        WindowJoiner().add(np.zeros(8191, np.float32), last=False)
    joiner = WindowJoiner()
    joiner.add(np.zeros(100, np.float32), last=True)
    with pytest.raises(ValueError, match="none after the last"):
        joiner.add(np.zeros(100, np.float32), last=True)
