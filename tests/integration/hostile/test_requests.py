"""Hostile requests by gRPC: a clear refusal or a right answer, in bounded time and memory, and nothing is hurt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from heartvoice.gateway.rate_limits import Limits
from heartvoice.server.server import EmbeddedServer
from tests.support.gateways import running
from tests.support.hostile import audio_cases, tensor_cases, text_cases, wire_cases
from tests.support.hostile.case import GOOD, Case, Watch, answer, check_error, check_finite, check_good, parametrised
from tests.support.raw import Raw


@pytest.fixture(scope="module")
def direct(server: EmbeddedServer) -> Iterator[Raw]:
    with Raw(server.url) as raw:
        yield raw


@pytest.fixture(scope="module")
def watch(server: EmbeddedServer) -> Watch:
    return Watch(server)


@pytest.fixture(scope="module")
def door(server: EmbeddedServer) -> Iterator[Raw]:
    """The way in through the gateway."""
    patient = Limits(requests_per_s=1e6, bytes_per_minute=10**12)
    with running(server.url, limits=patient) as gateway, Raw(gateway.url) as raw:
        yield raw


TOUCHED = set[str]()
"""Models that got a hostile request."""
WIRE = (wire_cases.SHAPES, wire_cases.LENGTHS, wire_cases.NAMES, wire_cases.PARAMETERS)


@parametrised(*WIRE)
def test_malformed_requests_are_refused(direct: Raw, watch: Watch, hostile: Case) -> None:
    run(direct, watch, hostile)


@parametrised(*WIRE)
def test_malformed_requests_are_refused_at_the_gateway(door: Raw, watch: Watch, hostile: Case) -> None:
    if hostile.at_gateway is not None:
        hostile = replace(hostile, error=hostile.at_gateway)
    elif hostile.error:
        hostile = replace(hostile, error=f"{hostile.error}|expected")
    run(door, watch, hostile)


@parametrised(text_cases.TEXTS, text_cases.SETTINGS, text_cases.CONVERSIONS)
def test_texts_and_settings_are_refused_by_name(direct: Raw, watch: Watch, hostile: Case) -> None:
    run(direct, watch, hostile)


@parametrised(tensor_cases.CODECS, tensor_cases.VOICES, tensor_cases.STEMS, tensor_cases.GRAPHS)
def test_hostile_numbers_are_refused_or_harmless(direct: Raw, watch: Watch, hostile: Case) -> None:
    run(direct, watch, hostile)


@parametrised(audio_cases.WAVS, audio_cases.FLACS, audio_cases.OGGS, audio_cases.MP3S, audio_cases.OTHERS)
def test_hostile_files_are_refused_or_read(direct: Raw, watch: Watch, hostile: Case) -> None:
    run(direct, watch, hostile)


def run(raw: Raw, watch: Watch, hostile: Case) -> None:
    message = hostile.message()
    with watch.over(hostile.memory_mib):
        error, got = answer(raw, message)
        if error or (hostile.error and not hostile.or_right):
            assert hostile.error, error
            check_error(error, hostile.error, echoed=hostile.echoed)
        else:
            assert got
            if not hostile.or_nan:
                check_finite(got)
    TOUCHED.add(message.model_name)


def test_good_requests_are_answered_after_all_of_them(direct: Raw, door: Raw, watch: Watch) -> None:
    """Each model that got hostile requests above, and one for the models without a quick request."""
    assert TOUCHED
    for raw in (direct, door):
        for model in sorted(TOUCHED & set(GOOD) | {"heartcodec"}):
            with watch.over(150.0):
                check_good(raw, model)
