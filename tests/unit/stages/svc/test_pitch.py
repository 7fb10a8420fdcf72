"""Pitch for the converter: medians, shifts, bins."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from heartvoice.stages.svc.pitch import (
    Rounding,
    automatic_shift,
    keeps_key,
    median_log,
    pitch_bins,
    range_warnings,
    shifted,
)
from heartvoice.stages.svc.settings import ConvertSettings
from tests.support.golden_cases import GoldenFolder, folder_params

SHIFTS, REGULATORS = folder_params("seed_vc/f0_shift"), folder_params("seed_vc/length_regulator")


def semitones_between(low: float, high: float) -> float:
    return float(12 * np.log2(high / low))


def contour(*hz: float) -> np.ndarray:
    return np.array(hz, np.float32)


# -------------------------------------------------------------------------------------------------------------- golden


@pytest.mark.parametrize("folder", SHIFTS)
def test_shifted_contours_are_the_references(folder: GoldenFolder) -> None:
    io: dict[str, Any] = folder.io
    names = [name for name in io if name.startswith("out.auto") and ".semitone" in name]
    assert names
    for name in names:
        automatic = automatic_shift(io["f0_src"], io["f0_ref"]) if name.startswith("out.auto1") else 0.0
        found = shifted(io["f0_src"], automatic + float(name.rpartition("semitone")[2]))
        np.testing.assert_allclose(found, io[name], rtol=1e-9, atol=0)
    for name in ("ref", "src"):
        assert median_log(io[f"f0_{name}"]) == pytest.approx(float(io[f"median_log_{name}"]), rel=1e-12)


@pytest.mark.parametrize("folder", SHIFTS)
def test_a_song_without_a_voiced_value_stays_unvoiced(folder: GoldenFolder) -> None:
    expected = folder.io["out.src_unvoiced.auto1"]
    source = np.zeros(expected.shape)
    found = shifted(source, automatic_shift(source, folder.io["f0_ref"]) + 4)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("folder", SHIFTS)
def test_quirk_3_a_reference_without_a_voiced_value_shifts_nothing(folder: GoldenFolder) -> None:
    """Decided against the original, whose median is NaN: it would put every voiced value into the unvoiced bin."""
    io = folder.io
    assert np.isnan(io["out.ref_unvoiced.auto1"]).any()
    assert (io["out.ref_unvoiced.auto1.bins"] == 1).all()
    silent = np.zeros(50)
    assert median_log(silent) is None
    assert automatic_shift(io["f0_src"], silent) == 0.0
    found = shifted(io["f0_src"], automatic_shift(io["f0_src"], silent))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, io["f0_src"] + 1e-5)


@pytest.mark.parametrize("folder", REGULATORS)
def test_bins_are_the_references(folder: GoldenFolder) -> None:
    table = folder.config["f0_to_coarse_256"]
    assert pitch_bins(np.array(table["f0"])).tolist() == table["bin"]


# -------------------------------------------------------------------------------------------------------------- quirks


def test_quirk_1_what_is_above_the_range_goes_to_bin_0() -> None:
    sweep = np.arange(20.0, 2100.0, 0.25)
    bins = pitch_bins(sweep)
    assert set(bins[sweep > 1103.2]) == {0}
    assert 0 not in bins[sweep <= 1103]
    assert pitch_bins(contour(1100.0, 1103.0))[0] == 255
    inside = bins[sweep <= 1103]
    assert (np.diff(inside) >= 0).all()
    assert set(inside) == set(range(1, 256))


def test_quirk_2_both_kinds_of_unvoiced_are_bin_1() -> None:
    reference, source = contour(0.0), shifted(contour(0.0), 7)
    assert source.tolist() == [1e-5]
    assert pitch_bins(reference).tolist() == pitch_bins(source).tolist() == [1]


def test_quirk_3_the_median_of_an_even_count_is_the_lower_of_two() -> None:
    assert median_log(contour(0, 400, 100, 200, 300)) == pytest.approx(np.log(200 + 1e-5), rel=1e-6)
    assert median_log(contour(300, 100, 0, 200)) == pytest.approx(np.log(200 + 1e-5), rel=1e-6)
    assert median_log(contour(1.0, 0.5)) is None


# ------------------------------------------------------------------------------------------------------------ roundings


@pytest.mark.parametrize(
    ("rounding", "expected"), [("exact", semitones_between(100, 130)), ("semitone", 5.0), ("octave", 0.0)]
)
def test_an_automatic_shift_is_rounded_as_asked(rounding: Rounding, expected: float) -> None:
    assert automatic_shift(contour(0, 100, 100), contour(130, 0), rounding) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("high", "octaves"), [(110, 0), (138, 0), (145, 1), (200, 1), (280, 1), (300, 2), (60, -1)])
def test_octaves_are_the_nearest(high: float, octaves: int) -> None:
    assert automatic_shift(contour(100), contour(high), "octave") == 12 * octaves


def test_an_exact_shift_makes_the_medians_equal() -> None:
    source, reference = contour(0, 110, 123, 131, 0, 147), contour(220, 262, 0, 247)
    moved = shifted(source, automatic_shift(source, reference))
    assert median_log(moved) == pytest.approx(median_log(reference), abs=1e-6)


def test_a_rounded_shift_keeps_a_song_in_tune() -> None:
    source = 55 * 2 ** (np.arange(30) / 12)
    moved = shifted(source, automatic_shift(source, source * 1.34, "semitone"))
    steps = [semitones_between(low, high) for low, high in pairwise(np.concatenate([source[:1], moved]))]
    assert np.abs(np.array(steps) - np.round(steps)).max() < 1e-4


@pytest.mark.parametrize("apart", [-15, -8, -5, -3, 2, 4, 9, 6.6, 17.9, -30.2, 0])
def test_the_default_keeps_the_key_and_only_whole_octaves_do(apart: float) -> None:
    source, voice = contour(220, 220), contour(220 * 2 ** (apart / 12))
    by_default = ConvertSettings().automatic_shift(source, voice)
    assert keeps_key(by_default)
    assert abs(by_default - apart) <= 6.01
    by_semitones = ConvertSettings(auto_pitch="semitone").automatic_shift(source, voice)
    assert by_semitones == round(apart)
    assert keeps_key(by_semitones) == (round(apart) % 12 == 0)
    assert ConvertSettings(auto_pitch="off").automatic_shift(source, voice) == 0


@pytest.mark.parametrize(
    ("apart", "held", "octaves"), [(7, 0.0, 0), (8.9, 0.0, 0), (9.1, 0.0, 1), (5, 12.0, 1), (2, 12.0, 0), (7, None, 1)]
)
def test_a_song_does_not_jump_by_an_octave_for_a_little(apart: float, held: float | None, octaves: int) -> None:
    voice = contour(220 * 2 ** (apart / 12))
    assert automatic_shift(contour(220), voice, "octave", held=held) == 12 * octaves
    assert automatic_shift(contour(220), voice, "semitone", held=held) == round(apart)


# ------------------------------------------------------------------------------------------------ the converter's range


def notes(*runs: tuple[float, int]) -> np.ndarray:
    """Make a contour of notes of (Hz, values)."""
    return np.concatenate([np.full(n, hz, np.float32) for hz, n in runs])


@pytest.mark.parametrize(
    ("sung", "semitones", "expected"),
    [
        (notes((220, 300), (0, 20), (700, 50)), 0, None),
        (notes((220, 300), (1050, 50)), 0, None),
        (notes((220, 300), (0, 20), (700, 50)), 12, "0.5 s of the singing are above 1100 Hz after the shift of +12.0"),
        (
            notes((220, 300), (1500, 30), (0, 5), (1200, 20)),
            0,
            "0.5 s of the singing are above 1100 Hz after the shift",
        ),
        (notes((110, 300), (80, 25)), -12, "0.2 s of the singing are below 50 Hz after the shift of -12.0 semitones"),
        (notes((220, 300), (1500, 9), (220, 50)), 0, None),  # a slip of the tracker
        (notes((0, 500)), 24, None),
    ],
)
def test_notes_beyond_the_range_are_a_warning(sung: np.ndarray, semitones: float, expected: str | None) -> None:
    found = range_warnings(sung, semitones)
    assert len(found) == (expected is not None)
    assert (expected or "") in "".join(found)
    if found:
        octave = float(found[0].rpartition(" ")[2])
        other = semitones + (-octave if "lower" in found[0] else octave)
        assert range_warnings(sung, other) == [], "the advice brings all notes into the range"
        assert other % 12 == 0


def test_both_ends_of_the_range_are_warned_of() -> None:
    assert len(range_warnings(notes((30, 50), (1200, 50)), 0)) == 2
