"""The checks of an enrolment: who is let in, who is refused, and who is left to the operator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from heartvoice.audio.recordings import Recording
from heartvoice.config.presets import SwiftF0Config
from heartvoice.contracts.constants import SAMPLE_RATE_HZ
from heartvoice.errors import InvalidRequestError
from heartvoice.evaluation.judges import OneNetwork
from heartvoice.evaluation.speech import WINDOW, speech_probabilities
from heartvoice.evaluation.voice_checks import (
    SAME_ABOVE,
    VoiceChecks,
    compare_words,
    said_enough,
    spoken_verdict,
)
from heartvoice.stages.f0 import F0Stage
from heartvoice.voices.phrases import LANGUAGES, choose_words, statement
from heartvoice.voices.records import Consent, Finding
from heartvoice.watermark import mark
from tests.fakes.judges import Crossings, tone
from tests.fakes.whisper import Said, lyric_judge
from tests.support import music

WORDS = ("apple", "bridge", "candle", "dragon", "eagle", "feather")
TEXT = statement("en", speaker="J. Doe", service="Studio", purpose="demos", words=WORDS)
ALIKE = {"resemblyzer": 1.0, "campplus": 1.0}
CONSENT = Consent("consent_0", "J. Doe", "demos", "Studio", "en", WORDS, TEXT, 0.0, 600.0)


class Speech:
    """Fake silero-vad: somebody speaks wherever there is sound."""

    def run(self, inputs: Mapping[str, Any], outputs: Sequence[str] | None = None) -> dict[str, Any]:
        assert inputs["input"].shape[1:] == (576,)
        return {"speech_probs": (np.abs(inputs["input"]).max(axis=1) > 0.01).astype(np.float32)}


class Embeds:
    """Fake judge: all recordings of one pitch are one voice; others have a given cosine to it."""

    def __init__(self, cosine: float) -> None:
        self._other = np.array([cosine, np.sqrt(1 - cosine**2)], np.float32)

    def embed(self, audio: np.ndarray) -> np.ndarray:
        rising = np.sum((audio[:-1] < 0) & (audio[1:] >= 0)) / len(audio) * 16_000
        return np.array([1, 0], np.float32) if rising < 250 else self._other


def sound(hz: float, seconds: float = 8.0) -> bytes:
    return music.encode(tone(hz, seconds), 16_000, "WAV", "FLOAT")


def examine(
    cosines: Mapping[str, float] = ALIKE, *, said: str = TEXT, consent: Consent = CONSENT, phrase: bytes | None = None
) -> dict[str, Finding]:
    judges: Any = {engine: Embeds(cosine) for engine, cosine in cosines.items()}
    f0 = F0Stage(OneNetwork(Crossings()), SwiftF0Config())
    checks = VoiceChecks(Speech(), f0, judges, lyric_judge(Said(said)).transcriber, {"whisper": "ab"}, {})
    found = checks.examine(consent, phrase or sound(200), [sound(200 if min(cosines.values()) == 1 else 300)])
    assert found.transcript == (said if consent.locale == "en" else "")
    return {each.check: each for each in found.findings}


def test_the_speaker_of_the_words_and_the_reference_is_verified() -> None:
    found = examine()
    assert {name: each.passed for name, each in found.items()} == {
        "speech": True, "words": True, "not generated": True, "one speaker": True, "same speaker": True,
    }  # fmt: skip
    assert found["words"].facts == {"words_in_order": 6, "error": 0.0, "judge_sha256": "ab"}
    assert found["same speaker"].facts["judges"]["campplus"] == {"cosine": 1.0, "same_from": 0.818}


@pytest.mark.parametrize(
    ("cosines", "passed"),
    [
        ({"resemblyzer": 0.9, "campplus": 0.9}, True),
        ({"resemblyzer": 0.9, "campplus": 0.7}, None),
        ({"resemblyzer": 0.9, "campplus": 0.3}, None),
        ({"resemblyzer": 0.5, "campplus": 0.3}, False),
        ({"resemblyzer": 0.9}, None),  # one judge alone lets nobody in
        ({"resemblyzer": 0.5}, False),
    ],
)
def test_two_judges_let_a_voice_in_and_doubt_is_left_to_the_operator(
    cosines: dict[str, float], passed: bool | None
) -> None:
    assert examine(cosines)["same speaker"].passed is passed


@pytest.mark.parametrize(("engine", "least"), SAME_ABOVE.items())
def test_there_is_room_between_one_voice_and_two(engine: str, least: float) -> None:
    verdicts = [spoken_verdict(engine, cosine) for cosine in np.linspace(0, 1, 201)]
    assert verdicts == sorted(verdicts, key=["different", "undecided", "same"].index)
    assert spoken_verdict(engine, least) == "same" != spoken_verdict(engine, least - 0.001)
    assert verdicts.count("undecided") > 30


@pytest.mark.parametrize(
    ("said", "passed"),
    [
        (TEXT.replace("candle", "handle"), True),
        (TEXT.replace("candle", "handle").replace("eagle", "needle"), False),
        (TEXT.replace("apple, bridge", "bridge, apple").replace("eagle, feather", "feather, eagle"), False),
        (", ".join(WORDS), False),  # the words without the consent
        (TEXT[: TEXT.index("apple")], False),
        (statement("en", speaker="J. Doe", service="Studio", purpose="demos", words=choose_words("en")), False),
        ("", False),
    ],
)
def test_only_the_text_with_its_words_in_order_is_a_consent(said: str, passed: bool) -> None:
    assert said_enough(*compare_words(CONSENT, said)) is passed


def test_words_that_nobody_can_hear_are_left_to_the_operator() -> None:
    german = Consent(**{**CONSENT.__dict__, "locale": "de"})
    found = examine(consent=german)["words"]
    assert (found.passed, found.detail) == (None, "not checked: nothing here hears words in 'de'")


def test_a_phrase_without_speech_and_one_made_by_a_machine_are_refused() -> None:
    short = np.pad(tone(200, 4.0), ((0, 0), (0, 32_000)))
    found = examine(phrase=music.encode(short, 16_000, "WAV", "FLOAT"))
    assert (found["speech"].passed, found["words"].passed) == (False, True)
    with pytest.raises(InvalidRequestError, match=r"^phrase: expected 3 to 600 s"):
        examine(phrase=sound(200, 2.0))
    with pytest.raises(InvalidRequestError, match=r"^phrase: expected WAV"):
        examine(phrase=b"no sound")


def test_a_recording_with_the_operators_mark_is_refused_or_by_choice_reported() -> None:
    key, rng = b"k" * 32, np.random.default_rng(1)
    noise = (0.1 * rng.standard_normal((2, 12 * SAMPLE_RATE_HZ))).astype(np.float32)
    file = music.encode(mark(noise, key, 7), SAMPLE_RATE_HZ, "WAV", "FLOAT")
    f0 = F0Stage(OneNetwork(Crossings()), SwiftF0Config())
    judge: Any = Embeds(1.0)
    for allowed, passed in ((False, False), (True, None)):
        checks = VoiceChecks(
            Speech(),
            f0,
            {"resemblyzer": judge},
            lyric_judge(Said(TEXT)).transcriber,
            mark_key=key,
            allow_marked=allowed,
        )
        found = [each for each in checks.examine(CONSENT, file, [file]).findings if each.check == "not marked"]
        assert [(each.facts["recording"], each.passed) for each in found] == [("phrase", passed), ("reference", passed)]
        assert found[0].detail == "phrase: generated here: it carries our watermark"
        assert key.hex() not in repr(checks)
    for other in (noise, mark(noise, b"o" * 32, 7)):
        recording = Recording(other[:, : 4 * SAMPLE_RATE_HZ], SAMPLE_RATE_HZ)  # looked at in all speeds
        assert checks._not_marked("reference", recording, key).passed


def test_speech_windows_cover_a_recording_with_what_was_before() -> None:
    heard: list[np.ndarray] = []

    class Keeps:
        def run(self, inputs: Mapping[str, Any], outputs: Sequence[str] | None = None) -> dict[str, Any]:
            heard.append(inputs["input"])
            return {"speech_probs": np.zeros(len(inputs["input"]), np.float32)}

    audio = np.arange(1, 2 * WINDOW + 10, dtype=np.float32)
    assert speech_probabilities(Keeps(), audio).shape == (3,)
    assert np.array_equal(np.concatenate(heard[0][:, 64:])[: len(audio)], audio)
    assert np.array_equal(heard[0][1, :64], audio[WINDOW - 64 : WINDOW])


@pytest.mark.parametrize(
    ("order", "expected"), [((0, 1, 2, 3, 4, 5), 6), ((5, 4, 3, 2, 1, 0), 1), ((), 0), ((1, 2, 0, 1, 2, 3), 4)]
)
def test_words_count_in_their_order(order: tuple[int, ...], expected: int) -> None:
    heard = " ".join(f"{CONSENT.words[index]} other" for index in order)
    assert compare_words(CONSENT, heard)[0] == expected


@pytest.mark.parametrize("locale", LANGUAGES)
def test_a_language_has_words_enough_and_its_text_has_all_places(locale: str) -> None:
    listed = LANGUAGES[locale].words
    assert len(set(listed)) == len(listed) >= 64
    said = statement(locale, speaker="{x}", service="S", purpose="P.", words=("one", "two"))
    assert all(part in said for part in ("{x}", "S", "P", "one, two"))
