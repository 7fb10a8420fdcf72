"""The converter and what it makes possible, through the real server: the samples are those of this process."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest

from heartvoice.client import Client
from heartvoice.contracts.constants import MAX_RESPONSE_BYTES, STEM_RATE_HZ
from heartvoice.contracts.messages import AudioChunk, Message, StemsChunk
from heartvoice.pipeline.in_process import InProcessStages, InProcessVoiceStages, make_cover, make_song
from heartvoice.runtime.networks import JobNetworks, LocalNetworks
from heartvoice.runtime.repository import Repository
from heartvoice.server.server import EmbeddedServer
from heartvoice.stages.svc.converter import Converter
from heartvoice.stages.svc.request import ConversionRequest
from tests.fakes.networks import text
from tests.support import music
from tests.support.raw import Metrics, Raw
from tests.support.waiting import wait_until

SECONDS = 8.5
"""More than a window of the codec and of the separator."""
STEPS = {"svc_steps": np.array([2])}
LIVE = {"live": np.array([True])}
Arrays = dict[str, np.ndarray]


def voice(seed: int = 3) -> Arrays:
    return {
        "voice_audio": music.singer(4.0, STEM_RATE_HZ, seed=seed)[None],
        "voice_sample_rate": np.array([STEM_RATE_HZ]),
        "voice_consent": text("me, here"),
    }


def vocals(seconds: float = 4.0) -> np.ndarray:
    return music.singer(seconds, STEM_RATE_HZ, seed=8)


def streamed(server: EmbeddedServer, model: str, inputs: Arrays) -> list[Arrays]:
    with Raw(server.url) as raw:
        return [response for response in raw.stream(model, inputs, timeout=100) if response]


def payload(responses: list[Arrays], name: str) -> np.ndarray:
    """A stream's payload, joined; START is checked."""
    parts, at = list[np.ndarray](), 0
    for response in responses:
        assert "error" not in response, response
        if name in response:
            assert response["START"][0] == at
            assert response[name].nbytes <= MAX_RESPONSE_BYTES
            at += response[name].shape[-1]
            parts.append(response[name])
    return np.concatenate(parts, axis=-1)


def report(responses: list[Arrays]) -> dict[str, object]:
    value: dict[str, object] = json.loads(responses[-1]["REPORT"][0])
    return value


def test_converted_vocals_are_those_of_this_process(server: EmbeddedServer, repository: Repository) -> None:
    inputs = {"vocals": vocals(), **voice(), **STEPS}
    responses = streamed(server, "svc", inputs)
    networks = JobNetworks(LocalNetworks(repository))
    local = Converter(repository.preset).convert(networks, ConversionRequest.from_inputs(inputs))
    expected = np.concatenate([piece.vocals for piece in local])
    assert np.array_equal(payload(responses, "VOCALS"), expected)
    facts = report(responses)
    assert (facts["mode"], facts["samples"], facts["voice_consent"]) == ("exact", len(expected), "me, here")


def test_a_voice_is_found_by_its_key_or_asked_for(server: EmbeddedServer) -> None:
    inputs = {"vocals": vocals(), **voice(seed=21), **STEPS}
    key = ConversionRequest.from_inputs(inputs).voice_key
    named = {"vocals": inputs["vocals"], "voice_key": text(key), "voice_consent": text("me, here"), **STEPS}
    refused = streamed(server, "svc", named)
    assert refused[0]["error"].startswith("NOT_FOUND: voice_key: ")  # type: ignore[attr-defined]
    sent = payload(streamed(server, "svc", inputs), "VOCALS")
    assert np.array_equal(payload(streamed(server, "svc", named), "VOCALS"), sent)


@pytest.mark.parametrize("named", [True, False])
def test_a_forgotten_voice_is_asked_for_again_and_not_kept(server: EmbeddedServer, named: bool) -> None:
    seed = 41 + named
    inputs = {"vocals": vocals(), **voice(seed), **STEPS}
    key = ConversionRequest.from_inputs(inputs).voice_key
    by_key = {"vocals": inputs["vocals"], "voice_key": text(key), "voice_consent": text("me, here"), **STEPS}
    others = {"vocals": inputs["vocals"], **voice(seed + 10), **STEPS}
    other_key = ConversionRequest.from_inputs(others).voice_key
    sent = payload(streamed(server, "svc", inputs), "VOCALS")
    payload(streamed(server, "svc", inputs | {"prompt_s": np.array([5.0], np.float32)}), "VOCALS")
    payload(streamed(server, "svc", others), "VOCALS")
    with Client(server.url) as client:
        if named:
            forgotten = report(streamed(server, "svc", {"voice_key": text(key), "forget": np.array([True])}))
            assert forgotten == {"forgotten": 2}
        else:
            assert client.forget_voice((inputs["voice_audio"], STEM_RATE_HZ)) == 2
        assert client.forget_voice((inputs["voice_audio"], STEM_RATE_HZ)) == 0
    for _ in range(2):
        assert str(streamed(server, "svc", by_key)[0]["error"]).startswith("NOT_FOUND: voice_key: ")
        assert np.array_equal(payload(streamed(server, "svc", inputs), "VOCALS"), sent)  # sings, and is not kept
    payload(streamed(server, "svc", by_key | {"voice_key": text(other_key)}), "VOCALS")


def test_a_live_conversion_goes_on_from_its_state(server: EmbeddedServer) -> None:
    whole, state, parts = vocals(14.0), None, list[np.ndarray]()
    cuts = [0, 7 * STEM_RATE_HZ, len(whole)]
    for start, end in pairwise(cuts):
        more = {"more": np.array([end < len(whole)])} | ({} if state is None else {"state": state})
        responses = streamed(server, "svc", {"vocals": whole[start:end], **voice(), **STEPS, **LIVE, **more})
        parts.append(payload(responses, "VOCALS"))
        state = next((r["STATE"] for r in responses if "STATE" in r), None)
        assert (state is not None) == (end < len(whole))
    assert 0 <= len(whole) - sum(map(len, parts)) < 512


def local_payload(messages: list[Message]) -> np.ndarray:
    return np.concatenate([message.audio for message in messages if isinstance(message, AudioChunk)], axis=1)


@pytest.mark.parametrize("mode", [{}, LIVE], ids=["exact", "live"])
def test_served_cover_is_the_local_cover(server: EmbeddedServer, repository: Repository, mode: Arrays) -> None:
    recording = {"audio": music.song(SECONDS)[0], "sample_rate": np.array([STEM_RATE_HZ])}
    inputs = {**recording, **voice(), **STEPS, **mode, "stems": np.array([True])}
    responses = streamed(server, "cover", inputs)
    local = list(make_cover(repository, InProcessVoiceStages(repository), inputs))
    audio = payload(responses, "AUDIO")
    assert np.array_equal(audio, local_payload(local))
    stems = payload(responses, "STEMS")
    assert np.array_equal(stems, np.concatenate([m.stems for m in local if isinstance(m, StemsChunk)], axis=2))
    assert np.array_equal(stems[0] + stems[1], audio)
    facts = report(responses)
    assert facts["converted"] is True
    assert facts["stems"] == ["instrumental", "vocals"]


@pytest.mark.parametrize("mode", [{}, LIVE], ids=["exact", "live"])
def test_served_song_with_a_voice_is_the_local_one(
    server: EmbeddedServer, repository: Repository, mode: Arrays
) -> None:
    written = {
        "lyrics": text("La la la"),
        "duration_s": np.array([SECONDS], np.float32),
        "codec_window": np.array([93]),
    }
    inputs = {**written, "min_duration_s": np.array([SECONDS], np.float32), **voice(), **STEPS, **mode}
    responses = streamed(server, "song", inputs | {"return_codes": np.array([True])})
    expected = local_payload(list(make_song(repository, InProcessStages(repository), inputs)))
    audio = payload(responses, "AUDIO")
    assert np.array_equal(audio, expected)
    if "live" in mode:
        again = {"codes": payload(responses, "CODES"), "codec_window": np.array([93]), **voice(), **STEPS, **mode}
        assert np.array_equal(payload(streamed(server, "song", again), "AUDIO"), audio), "re-voiced without the LM"
    facts = report(responses)
    assert {"similarity", "f0", "svc", "voice_sha256", "frames"} <= set(facts)


def test_covers_at_once_keep_their_own_voices(server: EmbeddedServer) -> None:
    recording = {"audio": music.song(3.0)[0], "sample_rate": np.array([STEM_RATE_HZ])}
    jobs = [{**recording, **voice(seed), **STEPS} for seed in (31, 32)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda job: payload(streamed(server, "cover", job), "AUDIO"), jobs))
    alone = [payload(streamed(server, "cover", job), "AUDIO") for job in jobs]
    for audio, expected in zip(together, alone, strict=True):
        assert np.array_equal(audio, expected)
    assert not np.array_equal(alone[0], alone[1])


def test_cancelled_song_with_a_voice_frees_every_stage(server: EmbeddedServer, metrics: Metrics) -> None:
    inputs = {"lyrics": text("La la la"), "duration_s": np.array([30.0], np.float32), **voice(), **LIVE}
    with Raw(server.url) as raw:
        call = raw.call("song", inputs | {"codec_window": np.array([93])})
        next(call)
        call.cancel()
        wait_until(lambda: metrics.value("heartvoice_jobs_live") == 0, 60.0, "jobs still live")
