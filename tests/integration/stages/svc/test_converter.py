"""The converter behind `svc`: requests as tensors and back, voices by key, exact and live."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from heartvoice.config.presets import PRESETS
from heartvoice.contracts.constants import STEM_RATE_HZ
from heartvoice.errors import RequestCancelledError, VoiceNotFoundError
from heartvoice.runtime.networks import JobNetworks
from heartvoice.stages.svc.converter import Converter
from heartvoice.stages.svc.request import ConversionRequest, ConvertedChunk
from tests.support.cancelling import networks_until
from tests.support.svc_conversion import F0, SIZES, STYLE, Called, small_runs
from tests.unit.stages.svc.test_converter import inputs, vocals

PRESET = replace(PRESETS["tiny"], svc=SIZES, style=STYLE, f0=F0)


def networks() -> Called:
    return Called(small_runs())


def by_key(request: ConversionRequest) -> ConversionRequest:
    return replace(request, voice=None)


def joined(pieces: list[ConvertedChunk]) -> np.ndarray:
    assert [piece.report is not None for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    return np.concatenate([piece.vocals for piece in pieces])


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


def test_a_voice_that_was_forgotten_is_asked_for_again() -> None:
    converter, request = Converter(PRESET, limit_bytes=1), ConversionRequest.from_inputs(inputs())
    list(converter.convert(JobNetworks(networks()), request))
    with pytest.raises(VoiceNotFoundError):
        list(converter.convert(JobNetworks(networks()), by_key(request)))


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


def test_a_cancelled_conversion_ends_at_the_next_network() -> None:
    called, request = networks(), ConversionRequest.from_inputs(inputs())
    converter = Converter(PRESET)
    with pytest.raises(RequestCancelledError):
        list(converter.convert(networks_until(called, lambda: len(called.calls) >= 5), request))
    assert len(called.calls) == 5
