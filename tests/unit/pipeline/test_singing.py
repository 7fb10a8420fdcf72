"""Where somebody sings, at any level, and what the report says of it."""

from __future__ import annotations

import numpy as np
import pytest

from heartvoice.contracts.constants import STEM_RATE_HZ
from heartvoice.pipeline.singing import SingingDetector, SingingExcerpt, compare_singing
from tests.support import music
from tests.support.voice_stages import Oracle


def gained(audio: np.ndarray, db: float) -> np.ndarray:
    made: np.ndarray = audio * np.float32(10 ** (db / 20))
    return made


def n_found(*windows: tuple[np.ndarray, np.ndarray]) -> int:
    detector = SingingDetector()
    for vocals, mix in windows:
        detector.add(vocals, mix)
    return detector.n_blocks


@pytest.mark.parametrize(("gain_db", "offset"), [(0, 0.0), (-48, 0.0), (-58, 0.0), (20, 0.0), (-30, 0.2)])
def test_singing_is_found_at_any_level(gain_db: float, offset: float) -> None:
    mix, vocals, _ = (gained(part, gain_db) + np.float32(offset) for part in music.song(4.0))
    assert n_found((vocals, mix)) > 25
    assert n_found((vocals, vocals)) > 25, "a cappella"


@pytest.mark.parametrize("gain_db", [0, -50])
def test_leakage_and_silence_are_no_singing(gain_db: float) -> None:
    band = gained(music.band(4.0), gain_db)
    assert n_found((gained(band, -30), band)) == 0
    assert n_found((np.zeros_like(band), band)) == 0
    assert n_found((np.zeros_like(band), np.zeros_like(band))) == 0
    quiet = gained(band, -40)
    assert n_found((np.zeros_like(band), band), (quiet, quiet)) == 0, "what is left in a pause"


def excerpt(*parts: np.ndarray) -> np.ndarray:
    made = SingingExcerpt()
    for part in parts:
        made.add(part)
    return made.audio()


@pytest.mark.parametrize("gain_db", [0, -60])
def test_the_excerpt_is_of_singing_at_any_level(gain_db: float) -> None:
    sung = gained(music.singer(3.0), gain_db)
    bleed = gained(sung, -30)
    assert np.array_equal(excerpt(bleed, np.zeros_like(sung), sung, bleed), sung)
    assert len(excerpt(np.zeros_like(sung))) == 0


def test_the_excerpt_is_bounded() -> None:
    second = music.singer(1.0)
    assert len(excerpt(*[second] * 40)) == 30 * STEM_RATE_HZ


def test_the_medians_are_those_of_the_singing() -> None:
    class Tracker(Oracle):
        """Knows the pitch by the time."""

        def track_f0(self, audio: np.ndarray) -> np.ndarray:
            contour = super().track_f0(audio)
            contour[100:] = 50.0
            return contour

    sung = np.concatenate([music.singer(1.0), gained(music.singer(2.0), -35)])
    found = compare_singing(Tracker(sung[None]), sung, sung, sung, encoder="none")["f0"]
    assert [found[f"{side}_median_hz"] for side in ("source", "result", "voice")] == [220.0] * 3
