"""New vocals as loud as the old ones: from the first word, at any gain of the converter, in any recording."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from heartvoice.audio.loudness_match import LOOKAHEAD, MAX_GAIN_DB, LoudnessMatch

HOP = 4410
MODES = pytest.mark.parametrize("live", [False, True], ids=["exact", "live"])


def amplitude(db: float) -> Any:
    return np.float32(10.0 ** (db / 20.0))


def phrases(*levels_db: float | None, seed: int = 0) -> np.ndarray:
    """Noise of one second at each level, in dBFS; None is digital silence."""
    draw = np.random.default_rng(seed)
    seconds = [np.zeros(10 * HOP) if db is None else draw.standard_normal(10 * HOP) * amplitude(db) for db in levels_db]
    return np.asarray(np.concatenate(seconds), np.float32)


SONG = phrases(-70, -32, -20, -70, -18, -26, -70, -18, -19)
"""Leakage, a soft first word, phrases and rests."""
SUNG = (1, 2, 4, 5, 7, 8)
"""Seconds of it with singing."""


def matched(
    old: np.ndarray, new: np.ndarray, *, live: bool = False, ahead: int = 1
) -> tuple[np.ndarray, LoudnessMatch]:
    """Match in hops; `ahead` old ones come before each new one."""
    match, result, n_old = LoudnessMatch(live=live), list[np.ndarray](), 0
    n = len(old) // HOP

    def take() -> None:
        for _ in range(match.n_ready):
            at = len(result) * HOP
            result.append(match.apply(new[at : at + HOP]))

    for at in range(n):
        for index in range(n_old, min(at + ahead, n)):
            match.hear_old(old[index * HOP : (index + 1) * HOP])
            n_old += 1
        if n_old == n:
            match.end_old()
        match.hear_new(new[at * HOP : (at + 1) * HOP])
        take()
    match.end()
    take()
    return np.concatenate(result), match


def off_db(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Level of each hop against the old one's, in dB."""
    powers = [np.square(audio.reshape(-1, HOP), dtype=np.float64).mean(axis=1) for audio in (new, old)]
    return np.asarray(10 * np.log10(powers[0] / powers[1]))


def hops_of(*seconds: int) -> np.ndarray:
    return np.concatenate([np.arange(10 * second, 10 * second + 10) for second in seconds])


@MODES
@pytest.mark.parametrize("gain_db", [-30, -24, -20, -18, -12, -6, -1, 1, 6, 12, 20, 30])
def test_a_converter_of_any_gain_is_right_from_the_first_word(gain_db: float, live: bool) -> None:
    result, match = matched(SONG, SONG * amplitude(gain_db), live=live, ahead=len(SONG))
    assert np.abs(off_db(SONG, result)[hops_of(*SUNG)]).max() < 0.01
    assert (match.lowest_db, match.highest_db) == pytest.approx((-gain_db, -gain_db), abs=0.01)
    assert (match.missed_db, match.is_missing) == (0.0, False)


@pytest.mark.parametrize("gain_db", [-24, 0, 20])
def test_another_voice_becomes_as_loud_as_the_old_one(gain_db: float) -> None:
    other = phrases(-70, -32, -20, -70, -18, -26, -70, -18, -19, seed=1) * amplitude(gain_db)
    exact, _ = matched(SONG, other, ahead=len(SONG))
    assert np.abs(off_db(SONG, exact)[hops_of(*SUNG)]).max() < 1.0
    live, _ = matched(SONG, other, live=True)
    assert np.abs(off_db(SONG, live)[hops_of(*SUNG)][20:]).max() < 3.0


@MODES
@pytest.mark.parametrize("level_db", [-50, -30, 20])
def test_the_level_of_the_recording_makes_no_difference(level_db: float, live: bool) -> None:
    new = phrases(-65, -20, -20, -50, -20, -20, -50, -20, -20, seed=2) * amplitude(level_db / 2)
    usual, before = matched(SONG, new, live=live, ahead=len(SONG))
    scaled, after = matched(SONG * amplitude(level_db), new, live=live, ahead=len(SONG))
    assert after.lowest_db == pytest.approx(before.lowest_db + level_db, abs=0.01)
    assert after.highest_db == pytest.approx(before.highest_db + level_db, abs=0.01)
    np.testing.assert_allclose(scaled, usual * amplitude(level_db), rtol=1e-3)


@MODES
def test_equal_streams_keep_their_samples(live: bool) -> None:
    with_gaps = np.concatenate([phrases(None), SONG, phrases(None, None, -20, None)])
    result, match = matched(with_gaps, with_gaps, live=live, ahead=len(SONG))
    assert np.array_equal(result, with_gaps)
    assert (match.lowest_db, match.highest_db) == (0.0, 0.0)


def test_a_converter_that_levels_a_song_gets_its_dynamics_back() -> None:
    verse, chorus = [-32.0] * 14, [-18.0] * 14
    old = phrases(*verse, *chorus, *verse)
    result, match = matched(old, phrases(*[-20.0] * 42, seed=3), ahead=len(old))
    off = off_db(old, result)
    middles = [off[start : start + 40].mean() for start in (0, 190, 370)]
    assert np.abs(middles).max() < 1.0
    assert match.highest_db - match.lowest_db > 12


@MODES
def test_rests_have_no_part_in_a_gain(live: bool) -> None:
    noisy = SONG * amplitude(-12)
    rests = hops_of(3, 6)
    noisy.reshape(-1, HOP)[rests] = phrases(-45, -45, seed=4).reshape(-1, HOP)
    result, _ = matched(SONG, noisy, live=live, ahead=len(SONG))
    assert np.abs(off_db(noisy, result)[rests] - 12).max() < 0.1
    assert np.abs(off_db(SONG, result)[hops_of(*SUNG)]).max() < 0.1


@MODES
def test_digital_silence_stays_silent(live: bool) -> None:
    old = phrases(None, None, -20, -20, None, None, -20, None)
    result, match = matched(old, phrases(*[-30.0] * 8, seed=5), live=live)
    by_hop = np.abs(result.reshape(-1, HOP)).max(axis=1)
    assert not by_hop[:19].any()
    assert not by_hop[42:58].any()
    assert not by_hop[72:].any()
    assert by_hop[20:40].min() > 0
    assert match.highest_db == pytest.approx(10, abs=1)
    silent, _ = matched(old * 0, phrases(*[0.0] * 8), live=live)
    assert not silent.any()


@MODES
def test_gains_do_not_depend_on_how_the_streams_come(live: bool) -> None:
    old = np.concatenate([phrases(None, None, -40), SONG, SONG])
    new = phrases(*[-30.0] * 21, seed=6)
    first, _ = matched(old, new, live=live, ahead=1)
    for ahead in (3, 40, len(old)):
        assert np.array_equal(matched(old, new, live=live, ahead=ahead)[0], first)


def test_an_exact_match_waits_for_all_old_vocals_and_not_for_all_new_ones() -> None:
    match, old = LoudnessMatch(), np.concatenate([SONG, SONG])
    for at in range(0, len(old), HOP):
        match.hear_old(old[at : at + HOP])
        if at < 110 * HOP:
            match.hear_new(old[at : at + HOP])
    assert match.n_ready == 0
    match.end_old()
    assert 20 < match.n_ready < 110


def test_a_live_match_waits_for_a_second() -> None:
    match = LoudnessMatch(live=True)
    for index in range(LOOKAHEAD + 3):
        match.hear_old(SONG[:HOP])
        match.hear_new(SONG[:HOP])
        assert match.n_ready == max(0, index + 1 - LOOKAHEAD)
    for _ in range(3):
        match.apply(SONG[:HOP])
    with pytest.raises(ValueError, match="hop: expected one whose gain is known"):
        match.apply(SONG[:HOP])


@MODES
@pytest.mark.parametrize("gain_db", [-46, 46])
def test_a_converter_that_is_too_far_off_is_told_of(gain_db: float, live: bool) -> None:
    result, match = matched(SONG, SONG * amplitude(gain_db), live=live)
    assert match.missed_db == pytest.approx(6, abs=0.01)
    assert abs(match.highest_db) == abs(match.lowest_db) == MAX_GAIN_DB
    assert np.abs(np.abs(off_db(SONG, result)[hops_of(*SUNG)]) - 6).max() < 0.01


def test_missing_singing_is_told_of_and_a_missing_phrase_moves_nothing() -> None:
    result, match = matched(SONG, SONG * 0)
    assert match.is_missing
    assert not result.any()
    assert not matched(SONG * 0, SONG)[1].is_missing
    dropped = SONG * amplitude(-12)
    dropped[20 * HOP : 30 * HOP] = 0
    result, match = matched(SONG, dropped)
    assert (match.lowest_db, match.highest_db) == pytest.approx((12, 12), abs=0.01)
    kept = np.delete(np.arange(len(SONG)), slice(20 * HOP, 30 * HOP))
    assert np.abs(off_db(SONG[kept], result[kept])[hops_of(1, 3, 4, 6, 7)]).max() < 0.01
