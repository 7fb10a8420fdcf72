"""What cosines between voices mean: the measured numbers, and honest words."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from heartvoice.config.presets import SPEAKERS
from heartvoice.errors import InvalidRequestError
from heartvoice.evaluation.similarity import DEFAULT_JUDGES, Decision, Verdict, decide, meaning, thresholds, verdict
from heartvoice.stages.calibration import CALIBRATIONS, TITLES


def test_engines_were_measured_or_say_that_they_were_not() -> None:
    unmeasured = SPEAKERS.keys() - CALIBRATIONS.keys()
    assert unmeasured == {"ecapa", "wavlm"}
    for engine in unmeasured:
        assert verdict(engine, 0.99, 20) == "undecided"
        assert "nothing was measured" in meaning(engine, 0.99, 20)


@pytest.mark.parametrize(
    ("engine", "cosine", "seconds", "expected"),
    [
        ("campplus", 0.85, 20, "same"),
        ("campplus", 0.67, 20, "same"),  # above every pair of different recordings
        ("campplus", 0.60, 20, "undecided"),
        ("campplus", 0.22, 20, "different"),
        ("resemblyzer", 0.90, 20, "same"),
        ("resemblyzer", 0.83, 20, "undecided"),
        ("resemblyzer", 0.62, 20, "different"),  # the median of different voices
        ("resemblyzer", 0.68, 3, "undecided"),  # which one voice can have in 3 s
        ("resemblyzer", 0.50, 3, "different"),
        ("unheard of", 0.99, 20, "undecided"),
    ],
)
def test_verdicts_follow_the_measurement(engine: str, cosine: float, seconds: float, expected: str) -> None:
    assert verdict(engine, cosine, seconds) == expected


@pytest.mark.parametrize("engine", CALIBRATIONS)
@pytest.mark.parametrize("seconds", [1.0, 4.0, 8.0, 30.0])
def test_more_alike_is_never_more_different(engine: str, seconds: float) -> None:
    order = ("different", "undecided", "same")
    verdicts = [order.index(verdict(engine, float(cosine), seconds)) for cosine in np.linspace(-1, 1, 401)]
    assert verdicts == sorted(verdicts)
    assert set(verdicts) == {0, 1, 2}


@pytest.mark.parametrize("engine", CALIBRATIONS)
def test_the_share_of_different_voices_falls_from_nearly_all_to_none(engine: str) -> None:
    shares = [CALIBRATIONS[engine].share_reached(float(cosine)) for cosine in np.linspace(-1, 1, 401)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == 0.95
    assert shares[-1] == 0.0


@pytest.mark.parametrize(
    ("engine", "cosine", "share"), [("campplus", 0.52, "about 5 %"), ("resemblyzer", 0.6, "about 70 %")]
)
def test_the_text_tells_how_often_different_voices_reach_it(engine: str, cosine: float, share: str) -> None:
    assert share in meaning(engine, cosine, 10.0)


def test_short_recordings_are_warned_of() -> None:
    assert "Only 3.0 s" in meaning("resemblyzer", 0.9, 3.0)
    assert "Only" not in meaning("resemblyzer", 0.9, 5.0)


def test_an_unknown_encoder_gets_the_number_alone() -> None:
    text = meaning("unheard of", 0.5, 10.0)
    assert "0.50" in text
    assert "voice" not in text


@pytest.mark.parametrize("cosine", [1.01, -1.01, float("nan")])
def test_what_is_no_cosine_is_refused(cosine: float) -> None:
    with pytest.raises(InvalidRequestError, match="cosine: expected -1 to 1"):
        meaning("campplus", cosine, 10.0)


def test_a_cosine_may_be_rounded_beyond_1() -> None:
    assert verdict("campplus", 1.0000002, 10.0) == "same"


def test_it_needs_the_base_install_alone() -> None:
    code = "import sys, heartvoice.evaluation.similarity; print({'torch', 'onnx', 'scipy', 'soxr'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# ------------------------------------------------------------------------------------------------------ several judges


def test_every_engine_has_a_title() -> None:
    assert set(TITLES) == set(SPEAKERS)
    assert all(calibration.title == TITLES[engine] for engine, calibration in CALIBRATIONS.items())


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"resemblyzer": "same", "campplus": "same"}, "same"),
        ({"resemblyzer": "different", "campplus": "different"}, "different"),
        ({"resemblyzer": "same", "campplus": "different"}, "undecided"),
        ({"resemblyzer": "same", "campplus": "undecided"}, "undecided"),
        ({"campplus": "same"}, "same"),
        ({}, "undecided"),
    ],
)
def test_judges_decide_together_or_not_at_all(said: dict[str, Verdict], expected: str) -> None:
    made = decide(said, {})
    assert made.verdict == expected
    assert made.judges == said
    assert set(made.missing) == set(DEFAULT_JUDGES) - set(said)


def test_a_judge_of_whom_nothing_was_measured_does_not_decide() -> None:
    made = decide({"resemblyzer": "same", "ecapa": "undecided"}, {"campplus": "no file"})
    assert made == Decision("same", {"resemblyzer": "same"}, {"campplus": "no file"})
    assert made.text == "same, by one judge alone (Resemblyzer same); missing: CAMPPlus: no file"


def test_a_decision_names_its_judges() -> None:
    assert decide({"resemblyzer": "same", "campplus": "different"}, {}).text == (
        "undecided (Resemblyzer same, CAMPPlus different)"
    )
    assert decide({}, {}).text == "no judge decided; missing: Resemblyzer: not asked; CAMPPlus: not asked"


@pytest.mark.parametrize("engine", CALIBRATIONS)
def test_a_meaning_names_the_judge_and_its_thresholds(engine: str) -> None:
    text = meaning(engine, 0.8, 10.0)
    assert thresholds(engine) in text
    assert TITLES[engine] in thresholds(engine)
    for made in CALIBRATIONS[engine].equal_errors:
        assert 0 < made.threshold < 1
        assert 0 <= made.rate < 0.5
        assert f"{made.threshold:.2f} of {made.material}" in text
    assert thresholds("wavlm") == ""
