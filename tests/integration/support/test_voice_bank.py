"""A short song of the voice bank: its stems, its words, and what a tracker and a listener hear."""

from __future__ import annotations

import numpy as np
import pytest

from heartvoice.audio.dsp import resample
from heartvoice.contracts.constants import SPEECH_RATE_HZ
from heartvoice.loadtest.signals import score
from heartvoice.stages.f0 import F0Stage
from tests.support import f0_engines, music
from tests.support.bank_songs import bank_song
from tests.support.voice_bank import BankSong
from tests.support.voice_bank.songs import PEAK_DBTP, RATE_HZ
from tests.support.weights_files import tiny_en

SECONDS = 8.0
pytestmark = pytest.mark.timeout(600)  # the first run on a machine fetches 140 MB


@pytest.fixture(scope="module")
def song() -> BankSong:
    return bank_song("harbour", SECONDS)


def test_the_stems_are_as_loud_as_each_other_and_the_mix_is_not_clipped(song: BankSong) -> None:
    assert song.vocals.shape == song.instrumental.shape == (2, SECONDS * RATE_HZ)
    (line,) = song.lines
    assert song.lyrics == line.words == "The harbour lights are burning low tonight"
    levels = [float(np.mean(np.square(stem, dtype=np.float64))) for stem in (song.vocals, song.instrumental)]
    assert levels[0] == pytest.approx(levels[1], rel=1e-3)
    assert not song.vocals[:, : round(line.start_s * RATE_HZ)].any()
    assert music.true_peak_dbtp(song.mix) == pytest.approx(PEAK_DBTP, abs=0.01)


def test_a_listener_hears_the_words(song: BankSong) -> None:
    heard = tiny_en().judge(song.lyrics, {"sung": resample(song.vocals.mean(axis=0), RATE_HZ, SPEECH_RATE_HZ)})
    assert heard.errors["sung"].error <= 0.25
    assert heard.n_units == 7


def test_what_a_tracker_hears_is_the_pitch_that_was_synthesised(song: BankSong) -> None:
    stage = F0Stage(f0_engines.OneNetwork(f0_engines.swift_engine()), f0_engines.SWIFT)
    found = stage.track(resample(song.vocals.mean(axis=0), RATE_HZ, SPEECH_RATE_HZ))
    assert len(found) == len(song.f0_hz)
    result = score(found, song.f0_hz)
    assert result.rpa > 0.9
    assert result.median_cents < 8
    assert result.gross == 0
    assert result.false_alarms < 0.05
