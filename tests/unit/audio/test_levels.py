"""The level of a voice, and what is relative to it."""

from __future__ import annotations

import numpy as np
import pytest

from heartvoice.audio import levels
from heartvoice.audio.levels import (
    ORDINARY_DBFS,
    SILENCE_DBFS,
    at_ordinary_level,
    block_levels,
    heard,
    loudness_levels,
    voice_level,
)
from heartvoice.keyed_random import normal

RATE_HZ = 16_000


def tone(seconds: float, hz: float = 1000.0, dbfs: float = -20.0) -> np.ndarray:
    """A sine of this RMS, float32 [N]."""
    phase = 2 * np.pi * hz * np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    wave: np.ndarray = (np.sqrt(2) * 10 ** (dbfs / 20) * np.sin(phase)).astype(np.float32)
    return wave


@pytest.mark.parametrize(
    ("hz", "weight_db"), [(50, -30.2), (100, -19.1), (200, -10.9), (500, -3.2), (1000, 0.0), (2000, 1.2), (4000, 1.0)]
)
def test_the_weights_are_the_standards(hz: float, weight_db: float) -> None:
    """IEC 61672-1, table 3; the bilinear transform bends the last octave."""
    found = loudness_levels(tone(1.0, hz))[20:-20].mean()
    assert found == pytest.approx(-20 + weight_db, abs=0.7 if hz > 2000 else 0.2)


@pytest.mark.parametrize("n", [1, 159, 160, 161, 4000, 16_000])
def test_there_is_a_level_for_each_value_of_a_contour(n: int) -> None:
    assert loudness_levels(normal(0, "level", 0, (n,))).shape == (n // 160 + 1,)


def test_levels_in_blocks_are_levels_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    audio = normal(0, "level", 1, (50_001,)) + np.float32(0.3)
    whole = loudness_levels(audio)
    monkeypatch.setattr(levels, "_BLOCK", 7)
    np.testing.assert_allclose(loudness_levels(audio), whole, atol=1e-9)


def test_an_offset_is_no_level() -> None:
    assert block_levels(np.full(900, 0.5, np.float32), 300).max() < -120
    plain, offset = (voice_level(loudness_levels(tone(2.0) + np.float32(dc))) for dc in (0.0, 0.4))
    assert offset == pytest.approx(plain, abs=0.01)


@pytest.mark.parametrize(("voiced_s", "silent_s"), [(2.0, 0.0), (2.0, 8.0), (2.0, 300.0), (0.3, 2.7)])
def test_pauses_and_clicks_do_not_change_the_voices_level(voiced_s: float, silent_s: float) -> None:
    audio = np.concatenate([tone(voiced_s), np.zeros(round(silent_s * RATE_HZ), np.float32)])
    audio[len(audio) // 2] = 1.0
    assert voice_level(loudness_levels(audio)) == pytest.approx(-20, abs=0.3)


def test_what_is_far_below_the_voice_is_not_heard() -> None:
    found = heard(loudness_levels(np.concatenate([tone(2.0), tone(2.0, dbfs=-43.0), tone(2.0, dbfs=-37.0)])))
    assert found[5:195].all()
    assert not found[205:395].any()
    assert found[405:-5].all()


def test_nothing_of_a_silent_recording_is_heard() -> None:
    assert not heard(loudness_levels(tone(2.0, dbfs=SILENCE_DBFS - 3))).any()
    assert not heard(loudness_levels(np.zeros(1000, np.float32))).any()
    assert voice_level(np.zeros(0)) == -np.inf


@pytest.mark.parametrize(("dbfs", "becomes"), [(-70.0, ORDINARY_DBFS[0]), (3.0, ORDINARY_DBFS[1])])
def test_other_levels_become_ordinary(dbfs: float, becomes: float) -> None:
    audio = tone(2.0, dbfs=dbfs) + np.float32(0.01)
    made = at_ordinary_level(audio, voice_level(loudness_levels(audio)))
    assert voice_level(loudness_levels(made)) == pytest.approx(becomes, abs=0.01)
    assert abs(made.mean()) < 1e-6


def test_an_ordinary_recording_and_silence_stay_as_they_are() -> None:
    for audio in (tone(2.0), tone(2.0, dbfs=-29.0) + np.float32(1e-4), np.full(4000, 0.1, np.float32)):
        assert at_ordinary_level(audio, voice_level(loudness_levels(audio))) is audio
