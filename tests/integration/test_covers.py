"""The voice path through the real server: separation, embeddings, and covers by the tests' identity converter."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from tritonclient.grpc import service_pb2
from typer.testing import CliRunner

from heartvoice.audio.dsp import resample
from heartvoice.cli.main import app
from heartvoice.client import AudioChunk, Client
from heartvoice.client.messages import Message, Song
from heartvoice.contracts.constants import MAX_RESPONSE_BYTES, SAMPLE_RATE_HZ, STEM_RATE_HZ
from heartvoice.contracts.messages import StemsChunk
from heartvoice.errors import DeadlineError, InvalidRequestError, ModelUnavailableError
from heartvoice.pipeline.in_process import InProcessVoiceStages, make_cover
from heartvoice.runtime.repository import Repository
from heartvoice.server.command_line import ADMIN_HEADER
from heartvoice.server.server import EmbeddedServer
from heartvoice.stages.svc.request import ConversionRequest, ConvertedChunk
from tests.fakes.networks import text
from tests.support import music
from tests.support.raw import OF_COVERS, Metrics, Raw, with_identity_converter
from tests.support.servers import not_reloaded, running_server, wait_for_process
from tests.support.speech import say
from tests.support.waiting import wait_until

CONSENT = "the author of these tests, for these tests"
SECONDS = 17.0
SHORT_S = 4.0
FORMAT_S = 2.0
"""Length of a recording of each format."""


@pytest.fixture(scope="module")
def repository(repository: Repository, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return Repository(with_identity_converter(repository.root, tmp_path_factory.mktemp("identity") / "tiny"))


@pytest.fixture(scope="module")
def server(repository: Repository, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    log = tmp_path_factory.mktemp("server") / "server.log"
    with running_server(repository.root, log_path=log, models=OF_COVERS) as running:
        yield running


@pytest.fixture
def victims(server: EmbeddedServer) -> EmbeddedServer:
    """The same server, to lose processes: each test leaves it with all of them again."""
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
def minute(mix: np.ndarray) -> tuple[np.ndarray, int]:
    """The same band again and again, long enough for a cover to be in progress whatever the machine does."""
    return np.tile(mix, 4)[:, : 60 * STEM_RATE_HZ], STEM_RATE_HZ


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


def test_large_arrays_of_a_stream_take_no_shared_memory(
    server: EmbeddedServer, client: Client, recording: bytes, voice: bytes
) -> None:
    """See `heartvoice.serving.workarounds.array_frames`: what Triton takes once, it never gives back."""
    client.cover(recording, voice, consent=CONSENT)
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


def test_render_makes_a_cover_of_a_recording(client: Client, short: bytes, voice: bytes) -> None:
    data, report = client.render_cover(short, voice, consent=CONSENT, file_format="flac")
    audio, rate = soundfile.read(io.BytesIO(data), always_2d=True)
    assert (rate, audio.shape) == (SAMPLE_RATE_HZ, (round(SHORT_S * SAMPLE_RATE_HZ), 2))
    assert report.raw["format"] == "flac"
    assert f"voice {report.raw['voice_sha256'][:12]}" in soundfile.SoundFile(io.BytesIO(data)).comment


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


# ---------------------------------------------------------------------------------------------- demucs, speaker_encoder


def test_stems_of_a_file(server: EmbeddedServer, client: Client, recording: bytes, repository: Repository) -> None:
    stems = client.separate(recording)
    assert tuple(stems) == repository.preset.separator.sources
    assert all(stem.shape == (2, round(SECONDS * STEM_RATE_HZ)) for stem in stems.values())
    with Raw(server.url) as raw:
        inputs = {"file": np.array([recording], object), "sources": text("vocals")}
        responses = [r for r in raw.stream("demucs", inputs, timeout=60) if r]
    position = 0
    for response in responses[:-1]:
        assert response["START"][0] == position
        assert response["STEMS"].nbytes <= MAX_RESPONSE_BYTES
        position += response["STEMS"].shape[2]
    vocals = np.concatenate([r["STEMS"] for r in responses[:-1]], axis=2)[0]
    assert np.array_equal(vocals, stems["vocals"])
    assert json.loads(responses[-1]["REPORT"][0])["sources"] == ["vocals"]


def test_several_separations_at_once_are_those_alone(client: Client) -> None:
    recordings = [(music.song(seconds)[0], STEM_RATE_HZ) for seconds in (2.0, 4.0, 9.0)]
    alone = [client.separate(r, sources=["vocals"])["vocals"] for r in recordings]
    together: dict[int, np.ndarray] = {}

    def work(index: int) -> None:
        together[index] = client.separate(recordings[index], sources=["vocals"])["vocals"]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, stem in enumerate(alone):
        assert np.array_equal(together[index], stem)


def test_the_same_voice_is_nearer_than_another(client: Client) -> None:
    def embed(words: str, voice: str) -> np.ndarray:
        return client.embed((say(words, voice=voice), 16_000)).vector

    first = "Every evening the lamps along the harbour were lit one after the other by an old man."
    second = "Nobody remembers who built the bridge, but all of us have crossed it in the rain."
    same = float(embed(first, "en") @ embed(second, "en"))
    other = float(embed(first, "en") @ embed(second, "en+f3"))
    assert same > other + 0.1
    assert float(np.linalg.norm(embed(first, "en"))) == pytest.approx(1.0, abs=1e-5)


def test_recordings_are_checked_if_asked_for(client: Client) -> None:
    words = [
        say("Nobody remembers who built the bridge, but all of us have crossed it.", voice=v) for v in ("en", "en+f3")
    ]
    both = (np.concatenate(words), 16_000)
    (warning,) = client.embed(both, reference_check="warn").warnings
    assert warning.startswith("audio: two voices")
    with pytest.raises(InvalidRequestError, match="recording: expected one voice alone, got two voices"):
        client.embed(both, reference_check="strict")
    band = (music.band(4.0, 16_000), 16_000)
    with pytest.raises(InvalidRequestError, match="recording: expected somebody who speaks or sings"):
        client.embed(band, reference_check="warn")
    with pytest.raises(InvalidRequestError, match="voice: expected somebody who speaks or sings"):
        client.cover((music.song(2.0)[0], STEM_RATE_HZ), band, consent="nobody")


def test_similarity_names_the_recording_that_breaks_the_rules(server: EmbeddedServer, tmp_path: Path) -> None:
    words = [say("Nobody remembers who built the bridge, but all have crossed it.", voice=v) for v in ("en", "en+f3")]
    recordings = {
        "one": words[0], "two": np.concatenate(words), "band": music.band(4.0, 16_000).T, "rest": np.zeros(64_000),
    }  # fmt: skip
    for name, audio in recordings.items():
        soundfile.write(tmp_path / f"{name}.wav", audio, 16_000)

    def compared(first: str, second: str, *options: str) -> tuple[int, str]:
        files = [str(tmp_path / f"{name}.wav") for name in (first, second)]
        result = CliRunner().invoke(app, ["similarity", *files, "--url", server.url, *options])
        return result.exit_code, result.output

    code, said = compared("one", "two")
    assert (code, "two voices" in said) == (0, True), said
    for first, second, options, message in (
        ("one", "two", ["--reference-check", "strict"], "error: B: .*two.wav: expected one voice alone"),
        ("band", "one", [], "error: A: .*band.wav: expected somebody who speaks or sings"),
        ("one", "rest", [], "error: B: .*rest.wav: expected "),
    ):
        code, said = compared(first, second, *options)
        assert code == 2, said
        assert re.search(message, said.replace("\n", " ")), said


# ------------------------------------------------------------------------------------------------------------- endings


def test_cancelled_cover_frees_every_stage(
    server: EmbeddedServer, metrics: Metrics, recording: bytes, voice: bytes
) -> None:
    with Raw(server.url) as raw:
        call = raw.call("cover", cover_inputs(recording, voice, live=np.array([True])))
        next(call)
        call.cancel()
        wait_until(lambda: metrics.value("heartvoice_jobs_live") == 0, 60.0, "jobs still live")


def test_deadline_ends_a_cover(client: Client, metrics: Metrics, minute: tuple[np.ndarray, int], voice: bytes) -> None:
    with pytest.raises(DeadlineError):
        client.cover(minute, voice, consent=CONSENT, timeout_s=1.5)
    wait_until(lambda: metrics.value("heartvoice_jobs_live") == 0, 60.0, "jobs still live")


@pytest.mark.parametrize("victim", ["demucs", "htdemucs"])
def test_a_stage_killed_in_the_middle_fails_the_cover_clearly(
    victims: EmbeddedServer, minute: tuple[np.ndarray, int], voice: bytes, victim: str
) -> None:
    server, old = victims, victims.stub_pids()[victim]
    with Client(server.url, retries=0) as client:
        stream = client.stream_cover(minute, voice, consent=CONSENT, live=True)
        next(stream)
        with not_reloaded(server):
            os.kill(old, signal.SIGKILL)
            with pytest.raises(ModelUnavailableError, match=victim):
                for _ in stream:
                    pass
        wait_for_process(server, victim, old)
        assert client.cover((music.song(4.0)[0], STEM_RATE_HZ), voice, consent=CONSENT).report.raw["converted"]
    wait_until(lambda: Metrics(server.metrics_url).value("heartvoice_jobs_live") == 0, 60.0, "jobs still live")


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
    minute: tuple[np.ndarray, int],
    voice: bytes,
    victim: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = victims
    monkeypatch.setattr(server, "_reload", lambda name: None)  # an operator took it away, it stays away
    with Client(server.url, retries=0) as client:
        stream = client.stream_cover(minute, voice, consent=CONSENT, live=True)
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
    recording, old = (music.song(18.0)[0], STEM_RATE_HZ), victims.stub_pids()[victim]
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
    recording, old = (music.song(30.0)[0], STEM_RATE_HZ), victims.stub_pids()[name]
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
