"""The F0 benchmark's voices and scores, and a quick run of it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from heartvoice.loadtest.signals import VOICES, agreement, glide, melody, notes, score, steady


@pytest.mark.parametrize("name", VOICES)
def test_voices_have_the_pitch_that_they_state(name: str) -> None:
    """Checked by counting the fundamental's turns: the phase of a band around it, against the curve's integral."""
    voice = VOICES[name]()
    assert 0.45 < np.abs(voice.audio).max() <= 0.51
    assert len(voice.contour) == len(voice.audio) // 160 + 1
    voiced = voice.pitch > 0
    assert not voice.audio[~voiced].any()
    turns = np.cumsum(voice.pitch) / 16_000
    tone = np.exp(-2j * np.pi * turns) * voice.audio
    assert abs(tone[voiced].mean()) > 0.1  # in step with the fundamental from beginning to end


def test_noise_is_as_loud_as_it_says() -> None:
    voice = notes((200, 300), gap_s=0.2)
    noisy = voice.in_noise(5.0)
    power = np.square(voice.audio[voice.pitch > 0]).mean() / np.square(noisy.audio - voice.audio).mean()
    assert 10 * math.log10(power) == pytest.approx(5, abs=0.1)


def test_scores_count_what_they_say() -> None:
    truth = np.array([0, 0, 100, 100, 100, 100, 0, 0.0])
    found = np.array([0, 99, 100, 102, 110, 201, 0, 0.0])
    result = score(found, truth)
    assert result.rpa == 0.5
    assert result.gross == 0.25
    assert result.recall == 1.0
    assert result.false_alarms == 0.25
    assert result.median_cents == pytest.approx((1200 * np.log2(1.02) + 1200 * np.log2(1.1)) / 2)
    assert math.isnan(score(truth[2:6], truth[2:6]).false_alarms)


def test_margins_leave_out_ends_and_steps() -> None:
    truth = np.array([0, 0, 0, 100, 100, 100, 200, 200, 200.0])
    assert steady(truth, 1).tolist() == [False, True, False] * 3
    assert steady(glide(80, 800).contour, 5)[5:-5].all()


def test_agreement_counts_pitch_and_voicing() -> None:
    found = agreement(np.array([0, 100, 100, 101.0]), np.array([0, 100, 0, 100.0]))
    assert (found.n_apart, found.n_voicing, found.n_values) == (1, 1, 4)
    assert found.max_cents == pytest.approx(1200 * np.log2(1.01))


def test_a_melody_depends_on_its_seed() -> None:
    assert np.array_equal(melody(2.0).audio, melody(2.0).audio)
    assert not np.array_equal(melody(2.0).audio, melody(2.0, seed=1).audio)
    assert len(melody(2.0).audio) == 32_000
