"""The converter behind `svc`: requests as tensors and back, voices by key, exact and live."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from heartvoice.arrays import Array
from heartvoice.config.presets import PRESETS
from heartvoice.contracts.constants import STEM_RATE_HZ
from heartvoice.contracts.field_checks import check_inputs
from heartvoice.contracts.models import SVC
from heartvoice.errors import InvalidRequestError, RequestCancelledError, VoiceNotFoundError
from heartvoice.runtime.networks import JobNetworks
from heartvoice.stages.svc.converter import Converter
from heartvoice.stages.svc.request import ConversionRequest, ConvertedChunk
from heartvoice.stages.svc.settings import ConvertSettings
from tests.fakes.networks import text
from tests.support import music
from tests.support.cancelling import networks_until
from tests.support.svc_conversion import F0, SIZES, STYLE, Called, small_runs

PRESET = replace(PRESETS["tiny"], svc=SIZES, style=STYLE, f0=F0)
SETTINGS = {"svc_steps": np.array([2]), "prompt_s": np.array([3.0], np.float32)}


def networks() -> Called:
    return Called(small_runs())


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


def by_key(request: ConversionRequest) -> ConversionRequest:
    return replace(request, voice=None)


def joined(pieces: list[ConvertedChunk]) -> np.ndarray:
    assert [piece.report is not None for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    return np.concatenate([piece.vocals for piece in pieces])


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


@pytest.mark.slow
def test_a_voice_is_known_by_its_key_once_it_was_heard() -> None:
    converter, request = Converter(PRESET), ConversionRequest.from_inputs(inputs())
    with pytest.raises(VoiceNotFoundError, match=request.voice_key[:12]):
        list(converter.convert(JobNetworks(networks()), by_key(request)))
    sent = list(converter.convert(JobNetworks(networks()), request))
    again = networks()
    named = list(converter.convert(JobNetworks(again), by_key(request)))
    assert np.array_equal(joined(sent), joined(named))
    assert again.calls.count("svc_style") == 0, "nothing of the voice is computed again"
    assert converter.voices.report()["misses"] == 1
    other_prompt = replace(request.settings, prompt_s=3.5)
    with pytest.raises(VoiceNotFoundError):
        list(converter.convert(JobNetworks(networks()), replace(by_key(request), settings=other_prompt)))


@pytest.mark.slow
def test_a_voice_that_was_forgotten_is_asked_for_again() -> None:
    converter, request = Converter(PRESET, limit_bytes=1), ConversionRequest.from_inputs(inputs())
    list(converter.convert(JobNetworks(networks()), request))
    with pytest.raises(VoiceNotFoundError):
        list(converter.convert(JobNetworks(networks()), by_key(request)))


@pytest.mark.slow
def test_jobs_at_once_are_those_alone_and_hear_each_voice_once() -> None:
    requests = [ConversionRequest.from_inputs(inputs(seed)) for seed in (3, 7)]
    alone = [joined(list(Converter(PRESET).convert(JobNetworks(networks()), request))) for request in requests]
    converter, shared = Converter(PRESET), networks()
    gate = threading.Barrier(6)

    def work(index: int) -> np.ndarray:
        gate.wait(300)
        return joined(list(converter.convert(JobNetworks(shared), requests[index % 2])))

    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(work, range(6)))
    for index, result in enumerate(together):
        assert np.array_equal(result, alone[index % 2])
    assert shared.calls.count("svc_style") == 2


@pytest.mark.slow
def test_live_in_one_request_is_exact_and_in_several_as_long() -> None:
    whole = vocals(16.0)
    exact = joined(
        list(Converter(PRESET).convert(JobNetworks(networks()), ConversionRequest.from_inputs(inputs(vocals=whole))))
    )
    converter = Converter(PRESET)
    live = ConversionRequest.from_inputs(inputs(vocals=whole, live=np.array([True])))
    assert np.array_equal(joined(list(converter.convert(JobNetworks(networks()), live))), exact)
    state, parts = None, list[np.ndarray]()
    for start in range(0, len(whole), 6 * STEM_RATE_HZ):
        more = start + 6 * STEM_RATE_HZ < len(whole)
        part = replace(by_key(live), vocals=whole[start : start + 6 * STEM_RATE_HZ], state=state, more=more)
        pieces = list(converter.convert(JobNetworks(networks()), part))
        assert (pieces[-1].state is not None) == more
        state = pieces[-1].state
        parts.append(joined(pieces))
    assert sum(map(len, parts)) == len(exact)


@pytest.mark.slow
def test_a_cancelled_conversion_ends_at_the_next_network() -> None:
    called, request = networks(), ConversionRequest.from_inputs(inputs())
    converter = Converter(PRESET)
    with pytest.raises(RequestCancelledError):
        list(converter.convert(networks_until(called, lambda: len(called.calls) >= 5), request))
    assert len(called.calls) == 5


def test_defaults_are_those_of_the_contract() -> None:
    settings = ConversionRequest.from_inputs({k: v for k, v in inputs().items() if k not in SETTINGS}).settings
    assert settings == ConvertSettings()
    assert settings.auto_pitch == "octave", "a cover stays in the key of its band"
