"""The synthetic singers: without clicks, equal in every run, and in tune with their score."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from heartvoice.audio.dsp import resample
from heartvoice.audio.recordings import read_voice
from heartvoice.contracts.constants import SPEECH_RATE_HZ
from heartvoice.stages.f0 import F0_HOP, F0Stage
from tests.support import f0_engines, vocal_tract

SHORT_S, SECONDS = 3.0, 12.0


@pytest.mark.parametrize("who", vocal_tract.SINGERS, ids=lambda who: str(who.name))
def test_every_singer_fills_the_band_without_a_click(who: Any) -> None:
    audio = vocal_tract.sing(who, vocal_tract.VOCALISE, SHORT_S)
    assert len(audio) == SHORT_S * vocal_tract.RATE_HZ
    assert np.abs(audio).max() == pytest.approx(vocal_tract.PEAK)
    assert 10 * np.log10(np.mean(np.square(audio))) > -26  # one click that takes the peak leaves no level for the voice
    voice = read_voice(
        {"voice_audio": audio[None].astype(np.float32), "voice_sample_rate": np.array([vocal_tract.RATE_HZ])}
    )
    assert [warning for warning in voice.warnings if not warning.startswith("short")] == []


def test_the_same_call_gives_the_same_samples() -> None:
    once, again = (vocal_tract.sing(vocal_tract.SINGERS[0], vocal_tract.VOCALISE, 1.0) for _ in range(2))
    assert np.array_equal(once, again)


def test_a_melody_goes_on_for_as_long_as_is_asked() -> None:
    tune = vocal_tract.phrase((0, 1), (None, 1), vowels="a")
    score = vocal_tract.read_score(tune, 60, 6 * vocal_tract.BEAT_S)
    middles = (np.arange(6) + 0.5) * vocal_tract.BEAT_S * vocal_tract.RATE_HZ
    assert score.sounding[middles.astype(int)] == pytest.approx([1, 0, 1, 0, 1, 0], abs=1e-6)
    assert np.allclose(score.hz(), 261.626, rtol=1e-5)


@pytest.mark.parametrize("who", vocal_tract.SINGERS, ids=lambda who: str(who.name))
def test_the_melody_is_what_is_heard(who: Any) -> None:
    stage = F0Stage(f0_engines.OneNetwork(f0_engines.swift_engine()), f0_engines.SWIFT)
    score = vocal_tract.read_score(vocal_tract.VOCALISE, who.tonic, SECONDS)
    audio = vocal_tract.sing(who, vocal_tract.VOCALISE, SECONDS).astype(np.float32)
    found = stage.track(resample(audio, vocal_tract.RATE_HZ, SPEECH_RATE_HZ))
    step = F0_HOP * (vocal_tract.RATE_HZ // SPEECH_RATE_HZ)
    grid = np.minimum(np.arange(len(found)) * step, len(score.age_s) - 1)
    sung, silent = score.sounding[grid] > 0.95, score.sounding[grid] < 0.02
    assert np.mean(found[sung] > 0) > 0.98
    assert np.mean(found[silent] > 0) < 0.05
    both = sung & (found > 0)
    cents = np.abs(1200 * np.log2(found[both] / score.hz()[grid][both]))
    assert np.median(cents) < 30
