"""The voice path through the real server: separation, embeddings, and covers by the tests' identity converter."""

from __future__ import annotations

import io
import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from tritonclient.grpc import service_pb2

from heartvoice.audio.dsp import resample
from heartvoice.client import AudioChunk, Client
from heartvoice.client.messages import Message, Song
from heartvoice.contracts.attribution import credits_of
from heartvoice.contracts.constants import SAMPLE_RATE_HZ, STEM_RATE_HZ
from heartvoice.contracts.messages import StemsChunk
from heartvoice.errors import DeadlineError, InvalidRequestError, ModelUnavailableError
from heartvoice.pipeline.in_process import InProcessVoiceStages, make_cover
from heartvoice.provenance.key_folder import init_keys
from heartvoice.provenance.verification import verify_stream
from heartvoice.runtime.repository import Repository
from heartvoice.server.command_line import ADMIN_HEADER
from heartvoice.server.server import EmbeddedServer
from heartvoice.stages.svc.request import ConversionRequest, ConvertedChunk
from tests.fakes.networks import text
from tests.support import music
from tests.support.raw import OF_COVERS, Metrics, Raw, with_identity_converter
from tests.support.servers import kill_during, running_server, wait_for_connection, wait_for_process
from tests.support.speech import say
from tests.support.waiting import wait_until

CONSENT = "the author of these tests, for these tests"
SECONDS = 12.0
"""Three windows of the separator."""
SHORT_S = 4.0
FORMAT_S = 2.0
"""Length of a recording of each format."""


@pytest.fixture(scope="module")
def repository(repository: Repository, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return Repository(with_identity_converter(repository.root, tmp_path_factory.mktemp("identity") / "tiny"))


@pytest.fixture(scope="module")
def server(repository: Repository, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    log = tmp_path_factory.mktemp("server") / "server.log"
    keys = log.parent / "keys"
    init_keys(keys, "Studio")
    with running_server(repository.root, log_path=log, models=OF_COVERS, signing_keys=keys) as running:
        yield running


@pytest.fixture
def victims(server: EmbeddedServer) -> EmbeddedServer:
    """The same server, to lose processes: each test leaves it with all of them again."""
    wait_for_connection(server)
    return server


@pytest.fixture(scope="module")
def mix() -> np.ndarray:
    """A band and a singer, 44.1 kHz, peaks below -1 dBTP: nothing for the limiter to do."""
    return music.song(SECONDS)[0]


@pytest.fixture(scope="module")
def recording(mix: np.ndarray) -> bytes:
    return music.encode(mix, STEM_RATE_HZ, "WAV", "FLOAT")


@pytest.fixture(scope="module")
def short(mix: np.ndarray) -> bytes:
    """For what does not depend on the number of windows."""
    return music.encode(mix[:, : round(SHORT_S * STEM_RATE_HZ)], STEM_RATE_HZ, "WAV", "FLOAT")


@pytest.fixture(scope="module")
def long(mix: np.ndarray) -> tuple[np.ndarray, int]:
    """The same band again and again, long enough for a cover to be in progress whatever the machine does."""
    return np.tile(mix, 4), STEM_RATE_HZ


@pytest.fixture(scope="module")
def covered(server: EmbeddedServer, recording: bytes, voice: bytes) -> Song:
    with Client(server.url) as client:
        return client.cover(recording, voice, consent=CONSENT)


@pytest.fixture(scope="module")
def voice() -> bytes:
    words = "The lake lay still that morning, and nobody had yet thought of the boats, the nets, or the weather."
    return music.encode(say(words, voice="en"), 16_000, "FLAC", "PCM_16")


def region_bytes(pid: int) -> int:
    """Memory that the region of a model's process takes."""
    regions = set(re.findall(r"/dev/shm/heartvoice_\S+", Path(f"/proc/{pid}/maps").read_text()))
    return sum(Path(region).stat().st_blocks * 512 for region in regions)


def cover_inputs(recording: bytes, voice: bytes, **more: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "file": np.array([recording], object), "voice": np.array([voice], object), "voice_consent": text(CONSENT),
    } | more  # fmt: skip


def test_cover_by_an_identity_converter_is_the_recording(covered: Song, mix: np.ndarray) -> None:
    song = covered
    expected = resample(mix, STEM_RATE_HZ, SAMPLE_RATE_HZ)
    assert song.audio.shape == expected.shape
    assert float(np.abs(song.audio - expected).max()) <= 1e-5
    report = song.report.raw
    assert report["converted"] is True
    assert report["voice_consent"] == CONSENT
    assert (
        report["f0"]["source_median_hz"] == report["f0"]["result_median_hz"]
    )  # None: random weights may leave no pitch
    assert report["similarity"]["before"] == pytest.approx(report["similarity"]["after"], abs=1e-3)
    assert report["similarity"]["encoder"] == "resemblyzer"
    assert report["svc"] == {"engine": "identity", "samples": round(SECONDS * STEM_RATE_HZ)}
    assert report["random_weights"] is True
    assert {"separation_s", "conversion_s", "mix_s", "first_audio_s", "total_s"} <= set(report["timings"])


def test_large_arrays_of_a_stream_take_no_shared_memory(server: EmbeddedServer, covered: Song) -> None:
    """See `heartvoice.serving.workarounds.array_frames`: what Triton takes once, it never gives back."""
    assert region_bytes(server.stub_pids()["svc"]) < SECONDS * STEM_RATE_HZ * 4, "the vocals went through it"


def test_served_cover_is_the_local_cover(covered: Song, repository: Repository, recording: bytes, voice: bytes) -> None:
    def identity(request: ConversionRequest) -> Iterator[ConvertedChunk]:
        yield ConvertedChunk(request.vocals, None, {})

    stages = InProcessVoiceStages(repository, identity)
    messages = list(make_cover(repository, stages, cover_inputs(recording, voice)))
    local = np.concatenate([m.audio for m in messages if isinstance(m, AudioChunk)], axis=1)
    assert np.array_equal(covered.audio, local)


def test_first_audio_comes_while_later_windows_are_separated(
    server: EmbeddedServer, recording: bytes, voice: bytes
) -> None:
    inputs = cover_inputs(recording, voice, events=np.array([True]), live=np.array([True]))
    with Raw(server.url) as raw:
        responses = [r for r in raw.stream("cover", inputs, timeout=90) if r]
    audio = [index for index, r in enumerate(responses) if "AUDIO" in r]
    assert len(audio) >= 3
    events = [(index, json.loads(r["EVENT"][0])["stage"]) for index, r in enumerate(responses) if "EVENT" in r]
    assert {stage for _, stage in events} >= {"separate", "convert", "mix"}
    assert max(index for index, stage in events if stage == "separate") > audio[0], "separated before the first audio"


def test_vocals_are_mixed_louder_and_softer(client: Client, short: bytes, voice: bytes, mix: np.ndarray) -> None:
    same = resample(mix[:, : round(SHORT_S * STEM_RATE_HZ)], STEM_RATE_HZ, SAMPLE_RATE_HZ)
    louder = client.cover(short, voice, consent=CONSENT, vocal_gain_db=6.0).audio
    softer = client.cover(short, voice, consent=CONSENT, vocal_gain_db=-24.0).audio
    assert not np.allclose(louder, same, atol=1e-3)
    assert not np.allclose(softer, same, atol=1e-3)
    assert music.true_peak_dbtp(louder) <= -1.0 + 1e-3


def test_render_makes_a_signed_cover_of_a_recording(
    client: Client, server: EmbeddedServer, short: bytes, voice: bytes
) -> None:
    data, report = client.render_cover(short, voice, consent=CONSENT, file_format="flac")
    audio, rate = soundfile.read(io.BytesIO(data), always_2d=True)
    assert (rate, audio.shape) == (SAMPLE_RATE_HZ, (round(SHORT_S * SAMPLE_RATE_HZ), 2))
    assert report.raw["format"] == "flac"
    comment = soundfile.SoundFile(io.BytesIO(data)).comment
    assert comment.startswith("AI-generated; ")
    assert report.raw["voice_sha256"][:8] not in comment  # servers know a voice by it
    assert credits_of(comment) == report.attribution
    assert server.options.signing_keys is not None
    anchors = (server.options.signing_keys / "anchors.pem").read_bytes()
    found = verify_stream(io.BytesIO(data), "flac", anchors=anchors)
    assert (found.state, report.signed, found.facts["making"]) == ("trusted", True, "converted")
    assert found.facts["attribution"] == report.attribution
    assert found.facts["hashes"]["speaker"] == report.raw["hashes"]["speaker"]
    assert "Resemblyzer 0.1.4 (PyPI) (speaker encoder; Apache-2.0)" in report.attribution
    assert report.raw["hashes"]["speaker"].keys() == {"Resemblyzer-0.1.4-pretrained.pt"}


@pytest.mark.parametrize(
    ("rate", "channels", "file_format", "subtype"),
    [
        (8_000, 1, "WAV", "PCM_16"),
        (22_050, 2, "OGG", "VORBIS"),
        (44_100, 1, "MP3", "MPEG_LAYER_III"),
        (48_000, 2, "FLAC", "PCM_24"),
        (96_000, 2, "WAV", "FLOAT"),
    ],
)
def test_recordings_of_every_format_and_rate_come_back_at_48_khz(
    client: Client, voice: bytes, rate: int, channels: int, file_format: str, subtype: str
) -> None:
    audio = resample(music.song(FORMAT_S)[0], STEM_RATE_HZ, rate)[:channels]
    song = client.cover(music.encode(audio, rate, file_format, subtype), voice, consent=CONSENT)
    assert abs(song.audio.shape[1] - FORMAT_S * SAMPLE_RATE_HZ) <= 2 * SAMPLE_RATE_HZ / 10
    if subtype == "FLOAT":
        expected = np.broadcast_to(resample(audio, rate, SAMPLE_RATE_HZ), song.audio.shape)
        assert float(np.abs(song.audio - expected).max()) <= 1e-5


# ------------------------------------------------------------------------------------------------------------- endings


def test_cancelled_cover_frees_every_stage(
    server: EmbeddedServer, metrics: Metrics, recording: bytes, voice: bytes
) -> None:
    with Raw(server.url) as raw:
        call = raw.call("cover", cover_inputs(recording, voice, live=np.array([True])))
        next(call)
        call.cancel()
        wait_until(lambda: metrics.value("heartvoice_jobs_live") == 0, 60.0, "jobs still live")


def test_deadline_ends_a_cover(client: Client, metrics: Metrics, long: tuple[np.ndarray, int], voice: bytes) -> None:
    with pytest.raises(DeadlineError):
        client.cover(long, voice, consent=CONSENT, timeout_s=1.5)
    wait_until(lambda: metrics.value("heartvoice_jobs_live") == 0, 60.0, "jobs still live")


@pytest.mark.parametrize("victim", ["demucs", "htdemucs"])
def test_a_stage_killed_in_the_middle_fails_the_cover_clearly(
    victims: EmbeddedServer, long: tuple[np.ndarray, int], voice: bytes, victim: str
) -> None:
    with Client(victims.url, retries=0) as client:
        kill_during(victims, victim, client.stream_cover(long, voice, consent=CONSENT, live=True))
        assert client.cover((music.song(4.0)[0], STEM_RATE_HZ), voice, consent=CONSENT).report.raw["converted"]
    wait_until(lambda: Metrics(victims.metrics_url).value("heartvoice_jobs_live") == 0, 60.0, "jobs still live")


def rest_of(stream: Iterator[Message]) -> tuple[list[Message], str]:
    """What a stream still brings, or the stage that it failed for."""
    try:
        return list(stream), ""
    except ModelUnavailableError as error:
        return [], str(error)


def test_a_converter_that_dies_fails_the_cover_by_name_unless_it_is_back_in_time(
    victims: EmbeddedServer, mix: np.ndarray, voice: bytes
) -> None:
    """Its state travels with the requests, so a window may also go to the process that took its place."""
    server, old = victims, victims.stub_pids()["svc"]
    mix = np.tile(mix, 2)[:, : 30 * STEM_RATE_HZ]
    with Client(server.url, retries=0) as client:
        stream = client.stream_cover((mix, STEM_RATE_HZ), voice, consent=CONSENT, live=True)
        first = next(stream)
        os.kill(old, signal.SIGKILL)
        rest, error = rest_of(stream)
    wait_for_process(server, "svc", old)
    if error:
        assert error.startswith("svc: ")
    else:
        pieces = [piece.audio for piece in (first, *rest) if isinstance(piece, AudioChunk)]
        expected = resample(mix, STEM_RATE_HZ, SAMPLE_RATE_HZ)
        assert float(np.abs(np.concatenate(pieces, axis=1) - expected).max()) <= 1e-5


@pytest.mark.parametrize("victim", ["svc", "demucs", "speaker_encoder"])
def test_a_stage_unloaded_in_the_middle_fails_the_cover_by_name(
    victims: EmbeddedServer,
    long: tuple[np.ndarray, int],
    voice: bytes,
    victim: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = victims
    monkeypatch.setattr(server, "_reload", lambda name: None)  # an operator took it away, it stays away
    with Client(server.url, retries=0) as client:
        stream = client.stream_cover(long, voice, consent=CONSENT, live=True)
        next(stream)
        with Raw(server.url) as raw:
            raw.stub.RepositoryModelUnload(
                service_pb2.RepositoryModelUnloadRequest(model_name=victim),
                metadata=((ADMIN_HEADER, server._secret),), timeout=20,
            )  # fmt: skip
        with pytest.raises(ModelUnavailableError, match=victim):
            for _ in stream:
                pass
        with pytest.raises(ModelUnavailableError, match=victim):
            client.cover((music.song(2.0)[0], STEM_RATE_HZ), voice, consent=CONSENT)
        if victim == "svc":
            assert client.separate((music.song(2.0)[0], STEM_RATE_HZ), sources=["vocals"])["vocals"].shape[1]
        wait_until(lambda: Metrics(server.metrics_url).value("heartvoice_jobs_live") == 0, 60.0, "jobs still live")
        monkeypatch.undo()
        wait_until(lambda: client.model_ready(victim), 110.0, "the watch does not load it again")


def test_log_holds_neither_consent_nor_file_names(server: EmbeddedServer, short: bytes, voice: bytes) -> None:
    with Client(server.url) as client:
        client.cover(short, voice, consent="Zebediah Quill, by letter")
    assert server.options.log_path is not None
    assert "Quill" not in Path(server.options.log_path).read_text(errors="replace")


def test_consent_is_required(client: Client, server: EmbeddedServer, recording: bytes, voice: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="consent"):
        client.cover(recording, voice, consent="  ")
    inputs = cover_inputs(recording, voice)
    del inputs["voice_consent"]
    with Raw(server.url) as raw:
        assert next(raw.stream("cover", inputs))["error"].startswith("INVALID_ARG: voice_consent")


def test_a_killed_stage_costs_a_cover_time_and_not_one_sample(victims: EmbeddedServer, voice: bytes) -> None:
    victim = "demucs"
    recording, old = (music.song(14.0)[0], STEM_RATE_HZ), victims.stub_pids()[victim]
    with Client(victims.url, stall_timeout_s=4.0) as client:
        undisturbed = client.cover(recording, voice, consent=CONSENT, live=True)
        messages = list[Any]()
        for message in client.stream_cover(recording, voice, consent=CONSENT, live=True):
            if isinstance(message, AudioChunk) and not message.start:
                os.kill(old, signal.SIGKILL)
            messages.append(message)
    wait_for_process(victims, victim, old)
    assert messages.pop().attempts > 1, "nothing was lost: the test shows nothing"
    audio = [message.audio for message in messages if isinstance(message, AudioChunk)]
    assert np.array_equal(np.concatenate(audio, axis=1), undisturbed.audio)


def test_a_killed_stage_costs_a_separation_time_and_not_one_sample(
    victims: EmbeddedServer, repository: Repository
) -> None:
    name = repository.preset.separator.engine
    recording, old = (music.song(20.0)[0], STEM_RATE_HZ), victims.stub_pids()[name]
    with Client(victims.url, stall_timeout_s=4.0) as client:
        undisturbed = client.separate(recording)
        messages = list[Any]()
        for message in client.stream_stems(recording):
            if isinstance(message, StemsChunk) and not message.start:
                os.kill(old, signal.SIGKILL)
            messages.append(message)
    wait_for_process(victims, name, old)
    assert messages.pop().attempts > 1, "nothing was lost: the test shows nothing"
    stems = np.concatenate([message.stems for message in messages if isinstance(message, StemsChunk)], axis=2)
    assert np.array_equal(stems, np.stack(list(undisturbed.values())))
