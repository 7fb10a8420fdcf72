"""The F0 stage: accuracy of swift-f0 on voices of known pitch, and RMVPE's mathematics.

RMVPE has random weights here, so that nothing is said of its accuracy: only that the stage computes what its
specification does."""

from __future__ import annotations

import numpy as np
import pytest

from heartvoice.loadtest.signals import NOISES_DB, VOICES, agreement, melody, score
from heartvoice.stages import f0 as stage_module
from heartvoice.stages.f0 import (
    F0Stage,
    rmvpe_log_mel,
)
from tests.support.f0_engines import SMALL, SWIFT, OneNetwork, swift_engine
from tests.unit.stages.test_f0 import MARGIN, hiss, small_rmvpe, swift


@pytest.mark.parametrize("snr_db", NOISES_DB, ids=["clean", "20 dB", "5 dB"])
@pytest.mark.parametrize("name", VOICES)
def test_known_pitches_are_found_within_50_cents(name: str, snr_db: float | None) -> None:
    voice = VOICES[name]() if snr_db is None else VOICES[name]().in_noise(snr_db)
    contour = swift().track(voice.audio)
    assert contour.shape == voice.contour.shape
    held, whole = score(contour, voice.contour, MARGIN), score(contour, voice.contour)
    assert held.rpa == 1.0 if snr_db != 5.0 else held.rpa > 0.98
    assert held.gross == 0.0 if snr_db != 5.0 else held.gross < 0.02
    assert held.median_cents < 5.0
    assert not held.false_alarms > 0.0  # nan where there is no rest
    assert whole.rpa > 0.92
    assert whole.recall > 0.98


def test_windows_of_swift_f0_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    voice = melody(8.0)
    whole = swift().track(voice.audio)
    assert score(whole, voice.contour, MARGIN).rpa > 0.98
    monkeypatch.setattr(stage_module, "SWIFT_F0_WINDOW", 100)
    network = OneNetwork(swift_engine())
    cut = F0Stage(network, SWIFT).track(voice.audio)
    assert len(network.shapes) == 5
    found = agreement(cut, whole)
    assert (found.n_voicing, found.n_values) == (0, len(whole))
    assert found.max_cents < 0.01


def test_minutes_of_song_are_tracked() -> None:
    voice = melody(150.0)
    network = OneNetwork(swift_engine())
    contour = F0Stage(network, SWIFT).track(voice.audio)
    assert max(shape[2] for shape in network.shapes) <= (1875 + 21) * 256
    assert score(contour, voice.contour, MARGIN).rpa > 0.98


def test_a_long_song_in_pieces_is_nearly_the_song_in_one_call() -> None:
    audio = melody(16.0).audio
    audio = audio + hiss(len(audio), 0.01)
    network = small_rmvpe()
    network.shapes.clear()
    salience = network.run(
        "f0_network", {"features": rmvpe_log_mel(audio[:-160], 128)[None]}
    )["activations"]  # fmt: skip
    threshold = float(np.median(salience.max(axis=2)))  # half of the values are voiced
    whole = F0Stage(network, SMALL, threshold=threshold).track(audio)
    assert 0.3 < (whole > 0).mean() < 0.7
    assert len(network.shapes) == 2
    cut = F0Stage(network, SMALL, threshold=threshold, whole_frames=640, context_frames=160).track(audio)
    assert len(network.shapes) > 5
    assert max(shape[2] for shape in network.shapes[2:]) == 640
    found = agreement(cut, whole)
    assert found.max_cents < 0.02
    assert found.n_voicing == 0
    # Without context the edges differ: the comparison would see it.
    torn = F0Stage(network, SMALL, threshold=threshold, whole_frames=640, context_frames=0).track(audio)
    assert agreement(torn, whole).max_cents > 0.2
    assert agreement(torn, whole).n_voicing > 0
