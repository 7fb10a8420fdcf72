"""The converter behind `svc`: requests as tensors and back, voices by key, exact and live."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from heartvoice.arrays import Array
from heartvoice.contracts.constants import STEM_RATE_HZ
from heartvoice.contracts.field_checks import check_inputs
from heartvoice.contracts.models import SVC
from heartvoice.errors import InvalidRequestError
from heartvoice.stages.svc.request import ConversionRequest
from heartvoice.stages.svc.settings import ConvertSettings
from tests.fakes.networks import text
from tests.support import music

SETTINGS = {"svc_steps": np.array([2]), "prompt_s": np.array([3.0], np.float32)}


def vocals(seconds: float = 3.0, seed: int = 5) -> np.ndarray:
    return music.singer(seconds, STEM_RATE_HZ, seed=seed)


def inputs(seed: int = 3, /, **more: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "vocals": vocals(),
        "voice_audio": vocals(4.0, seed)[None],
        "voice_sample_rate": np.array([STEM_RATE_HZ]),
        "voice_consent": text("me, here"),
        **SETTINGS,
        **more,
    }


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("more", [{}, {"live": np.array([True]), "more": np.array([True])}])
def test_a_request_survives_its_tensors(named: bool, more: dict[str, np.ndarray]) -> None:
    first = ConversionRequest.from_inputs(
        inputs(
            auto_pitch=text("octave"),
            pitch_shift=np.array([-2.5], np.float32),
            svc_guidance=np.array([0.25], np.float32),
            **more,
        )
    )
    if more:
        first = replace(first, state=np.array([1.0, 2.0], np.float32))
    sent: Mapping[str, Array] = first.to_inputs(named=named)
    check_inputs(SVC, sent)
    second = ConversionRequest.from_inputs(sent)
    assert np.array_equal(second.vocals, first.vocals)
    assert (second.settings, second.live, second.more) == (first.settings, first.live, first.more)
    assert (second.voice is None) == named
    assert (second.voice_key, second.consent) == (first.voice_key, first.consent)
    assert (second.state is None) == (first.state is None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocals": None}, "vocals: missing"),
        ({"voice_audio": None, "voice_sample_rate": None}, "voice: expected either a voice or its key, got neither"),
        ({"voice_key": text("ab")}, "voice: expected either a voice or its key, got both"),
        ({"voice_consent": None}, "voice_consent: missing"),
        ({"more": np.array([True])}, "more: expected only with live"),
        ({"state": np.zeros(3, np.float32)}, "state: expected only with live"),
        ({"auto_pitch": text("fifths")}, "auto_pitch: expected one of off, exact, semitone, octave, got 'fifths'"),
        ({"svc_steps": np.array([0])}, "svc_steps: expected 1 to 100"),
    ],
)
def test_what_cannot_be_converted_is_refused(change: dict[str, np.ndarray | None], message: str) -> None:
    given = {name: value for name, value in (inputs() | change).items() if value is not None}
    with pytest.raises(InvalidRequestError, match=message):
        ConversionRequest.from_inputs(given)


def test_consent_is_asked_for_with_a_key_too() -> None:
    given = {"vocals": vocals(), "voice_key": text("ab")}
    with pytest.raises(InvalidRequestError, match="voice_consent: missing"):
        ConversionRequest.from_inputs(given)


def test_defaults_are_those_of_the_contract() -> None:
    settings = ConversionRequest.from_inputs({k: v for k, v in inputs().items() if k not in SETTINGS}).settings
    assert settings == ConvertSettings()
    assert settings.auto_pitch == "octave", "a cover stays in the key of its band"
