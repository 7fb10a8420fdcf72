"""What a voice reference holds: heard with the published networks."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from heartvoice.arrays import Array
from heartvoice.config.presets import SpeakerConfig
from heartvoice.errors import InvalidRequestError
from heartvoice.export.speaker_graph import build_speaker_network
from heartvoice.keyed_random import normal
from heartvoice.models.speaker import open_resemblyzer
from heartvoice.stages.f0 import F0Stage
from heartvoice.stages.reference import ReferenceCheck, voice_parts
from heartvoice.stages.speaker import SpeakerStage
from tests.support import music, weights_files
from tests.support.f0_engines import SWIFT, OneNetwork, swift_engine
from tests.support.graphs import engine_of
from tests.support.speech import say

RATE_HZ = 16_000
WORDS = "The kettle hums and the rain keeps time on the window, while the city sleeps."
OTHERS = "Seven wide rivers run down to the harbour, and every boat there has a name."


class Networks(OneNetwork):
    """One engine by any name."""

    def run(self, name: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        return self.engine.run(inputs, outputs)


@lru_cache(maxsize=1)
def speaker() -> SpeakerStage:
    sizes = SpeakerConfig()
    with TemporaryDirectory() as folder:
        engine = engine_of(build_speaker_network(sizes, open_resemblyzer(weights_files.resemblyzer())), Path(folder))
    return SpeakerStage(Networks(engine), sizes)


def checked(audio: np.ndarray, mode: str = "warn") -> ReferenceCheck:
    check = ReferenceCheck(audio.astype(np.float32), mode)
    check.hear(F0Stage(Networks(swift_engine()), SWIFT).track)
    check.compare({"resemblyzer": speaker().embed})
    return check


def singer(seconds: float = 6.0) -> np.ndarray:
    return music.singer(seconds, RATE_HZ, seed=1)


def with_band(db: float) -> np.ndarray:
    band = music.band(6.0, RATE_HZ).mean(axis=0)
    gain = 10 ** (db / 20) * np.sqrt(np.mean(singer() ** 2) / np.mean(band**2))
    mixed: np.ndarray = singer() + np.float32(gain) * band
    return mixed


@lru_cache(maxsize=1)
def two_voices() -> np.ndarray:
    voices: np.ndarray = np.concatenate([say(WORDS), say(OTHERS, "en+f3")])
    return voices


NOBODY: dict[str, Callable[[], np.ndarray]] = {
    "noise": lambda: normal(0, "nobody", 0, (5 * RATE_HZ,)) * np.float32(0.1),
    "a band": lambda: music.band(5.0, RATE_HZ).mean(axis=0),
    "a word in noise": lambda: np.concatenate([normal(0, "nobody", 1, (12 * RATE_HZ,)) * np.float32(0.1), singer(0.5)]),
    "silence": lambda: np.zeros(5 * RATE_HZ, np.float32),
}


@pytest.mark.parametrize("what", NOBODY)
@pytest.mark.parametrize("mode", ["warn", "strict"])
def test_a_reference_without_a_voice_is_refused(what: str, mode: str) -> None:
    check = ReferenceCheck(NOBODY[what](), mode)
    with pytest.raises(
        InvalidRequestError, match="voice: expected somebody who speaks or sings at least 5% of the time"
    ):
        check.hear(F0Stage(Networks(swift_engine()), SWIFT).track)


@pytest.mark.parametrize("gain_db", [0, -40])
@pytest.mark.parametrize(
    "voice", [singer, lambda: np.concatenate([say(WORDS), say(OTHERS)]), lambda: music.room(singer(), RATE_HZ)[0]],
    ids=["a singer", "a speaker", "in a room"],
)  # fmt: skip
def test_one_voice_alone_passes(voice: Callable[[], np.ndarray], gain_db: float) -> None:
    check = checked(voice() * np.float32(10 ** (gain_db / 20)), "strict")
    assert not check.warnings
    assert check.facts["voiced_share"] > 0.4
    assert check.facts["judges"]["resemblyzer"]["halves"]["cosine"] > 0.66


@pytest.mark.parametrize("db", [-10, -5, 0])
def test_music_behind_a_voice_is_told_and_refused_if_strict(db: float) -> None:
    check = checked(with_band(db))
    assert any("something behind the voice" in warning for warning in check.warnings)
    with pytest.raises(InvalidRequestError, match="expected one voice alone, got something behind the voice"):
        checked(with_band(db), "strict")


def test_two_voices_are_told_and_refused_if_strict() -> None:
    (warning,) = checked(two_voices()).warnings
    assert warning.startswith("voice: two voices: the cosine of its halves is 0.")
    with pytest.raises(InvalidRequestError, match="expected one voice alone, got two voices"):
        checked(two_voices(), "strict")


def judge(cosine: float) -> Callable[[np.ndarray], np.ndarray]:
    """Returns vectors of which two neighbouring calls have this cosine."""
    vectors = itertools.cycle([np.array([1.0, 0.0]), np.array([cosine, np.sqrt(1 - cosine**2)])])
    return lambda _: next(vectors)


@pytest.mark.parametrize(
    ("cosines", "said"),
    [
        ({"campplus": 0.9, "resemblyzer": 0.9}, None),
        ({"campplus": 0.1, "resemblyzer": 0.3}, r"two voices: .*0\.10.*\(CAMPPlus\); .*0\.30.*\(Resemblyzer\)"),
        ({"campplus": 0.1, "resemblyzer": 0.9}, "perhaps two voices: .*CAMPPlus.*; Resemblyzer takes them for one"),
        ({"campplus": 0.9, "resemblyzer": 0.3}, "perhaps two voices: .*Resemblyzer.*; CAMPPlus takes them for one"),
        ({"campplus": 0.1}, r"two voices: .*CAMPPlus"),
        ({"ecapa": 0.1, "resemblyzer": 0.3}, r"two voices: [^;]*Resemblyzer"),
        ({"ecapa": 0.1}, None),
    ],
)
def test_two_voices_are_what_all_calibrated_judges_find(cosines: dict[str, float], said: str | None) -> None:
    check = ReferenceCheck(singer(), "warn")
    check.compare({engine: judge(cosine) for engine, cosine in cosines.items()})
    assert len(check.warnings) == bool(said)
    if said is not None:
        assert re.search(f"voice: {said}", check.warnings[0])
    measured = {engine: found["halves"] for engine, found in check.facts.get("judges", {}).items()}
    assert {engine: found["cosine"] for engine, found in measured.items()} == pytest.approx(
        {engine: cosine for engine, cosine in cosines.items() if engine != "ecapa"}
    )
    assert all(0.5 < found["least_of_one_voice"] < 0.9 for found in measured.values())
    strict = ReferenceCheck(singer(), "strict")
    judges = {engine: judge(cosine) for engine, cosine in cosines.items()}
    if said is None or said.startswith("perhaps"):
        strict.compare(judges)
        return
    with pytest.raises(InvalidRequestError, match="expected one voice alone, got two voices"):
        strict.compare(judges)


def test_nothing_is_checked_if_it_is_off() -> None:
    for audio in (two_voices(), NOBODY["noise"]()):
        check = checked(audio, "off")
        assert not check.warnings
        assert not check.facts


def test_parts_have_equal_time_of_voice() -> None:
    pause = np.zeros(8 * RATE_HZ, np.float32)
    (what, one, other), (_, first, last) = voice_parts(np.concatenate([singer(4.0), pause, singer(8.0)]))
    assert what == "halves"
    assert len(one) == pytest.approx(14 * RATE_HZ, abs=RATE_HZ)
    assert len(other) == pytest.approx(6 * RATE_HZ, abs=RATE_HZ)
    assert len(first) == pytest.approx(13 * RATE_HZ, abs=RATE_HZ)
    assert len(last) == pytest.approx(5 * RATE_HZ, abs=RATE_HZ)
    assert voice_parts(singer(3.0)) == []
