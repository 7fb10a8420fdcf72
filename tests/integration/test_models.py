"""Every model through the real server: the protocol, and the same results as without it."""

from __future__ import annotations

import io
import json
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from heartvoice.audio.dsp import resample
from heartvoice.client import Client
from heartvoice.contracts.constants import (
    DECODER_HISTORY,
    FRAME_HOP,
    MAX_RESPONSE_SAMPLES,
    SAMPLE_RATE_HZ,
    SPEECH_RATE_HZ,
)
from heartvoice.contracts.messages import AudioChunk, CodesChunk
from heartvoice.pipeline.in_process import InProcessStages, make_song
from heartvoice.runtime.repository import Repository
from heartvoice.server.server import EmbeddedServer
from tests.fakes.networks import text
from tests.support.raw import Raw
from tests.support.weights_files import tiny_en

LYRICS, TAGS = "[verse]\nÜnder the 歌 moon", "pop, warm"
SHORT = {
    "duration_s": np.array([10.0], np.float32),
    "min_duration_s": np.array([10.0], np.float32),
    "codec_window": np.array([93]),
    "codec_steps": np.array([3]),
    "seed": np.array([5]),
}
SONG = {"lyrics": text(LYRICS), "tags": text(TAGS), **SHORT}
KEYWORDS = {name: value[0] for name, value in SHORT.items()}


@pytest.fixture(scope="module")
def local(repository: Repository) -> InProcessStages:
    return InProcessStages(repository)


@pytest.fixture(scope="module")
def expected(repository: Repository, local: InProcessStages) -> tuple[np.ndarray, np.ndarray]:
    """Audio and codes of SONG made in this process."""
    messages = list(make_song(repository, local, SONG | {"return_codes": np.array([True])}))
    audio = np.concatenate([m.audio for m in messages if isinstance(m, AudioChunk)], axis=1)
    return audio, np.concatenate([m.codes for m in messages if isinstance(m, CodesChunk)], axis=1)


def test_served_song_is_the_local_song(client: Client, expected: tuple[np.ndarray, np.ndarray]) -> None:
    song = client.song(lyrics=LYRICS, tags=TAGS, return_codes=True, **KEYWORDS)
    audio, codes = expected
    assert song.audio.shape == (2, 125 * FRAME_HOP)
    assert song.codes is not None
    assert np.array_equal(song.codes, codes)
    assert np.array_equal(song.audio, audio)
    assert song.report.random_weights is True
    assert song.report.raw["weights"] == "random seed=0"
    assert np.isfinite(song.audio).all()
    assert 0.01 < float(np.sqrt((song.audio**2).mean())) < 1.0


def test_no_words_are_heard_in_a_song_of_random_weights(expected: tuple[np.ndarray, np.ndarray]) -> None:
    made = tiny_en().judge(
        "the river carries every song we knew", {"after": resample(expected[0].mean(0), SAMPLE_RATE_HZ, SPEECH_RATE_HZ)}
    )
    assert made.errors["after"].heard == ""
    assert made.errors["after"].error == 1.0


def test_protocol_of_a_song_by_raw_grpc(server: EmbeddedServer, expected: tuple[np.ndarray, np.ndarray]) -> None:
    with Raw(server.url) as raw:
        responses = [r for r in raw.stream("song", SONG) if r]
    assert "AUDIO" in responses[0], "the first response is the payload unless events are asked for"
    position = 0
    for response in responses[:-1]:
        assert set(response) == {"AUDIO", "START"}
        assert response["START"][0] == position
        assert response["AUDIO"].shape[1] <= MAX_RESPONSE_SAMPLES
        position += response["AUDIO"].shape[1]
    assert np.array_equal(np.concatenate([r["AUDIO"] for r in responses[:-1]], axis=1), expected[0])
    report = json.loads(responses[-1]["REPORT"][0])
    assert report["samples"] == position
    assert report["timings"]["first_audio_s"] <= report["timings"]["total_s"]


def test_final_response_is_empty(server: EmbeddedServer) -> None:
    from tests.support.raw import request

    message = request("song", SONG)
    message.parameters["triton_enable_empty_final_response"].bool_param = True
    with Raw(server.url) as raw:
        responses = list(raw.stub.ModelStreamInfer(iter([message]), timeout=60))
    last = responses[-1].infer_response
    assert last.parameters["triton_final_response"].bool_param
    assert not last.outputs


def test_events_come_when_asked_for(server: EmbeddedServer) -> None:
    with Raw(server.url) as raw:
        responses = list(raw.stream("song", SONG | {"events": np.array([True])}))
    events = [json.loads(r["EVENT"][0]) for r in responses if "EVENT" in r]
    assert {event["stage"] for event in events} >= {"lm", "codec"}
    for event in events:
        assert 0 <= event["done"] <= max(event["total"], event["done"])
        assert event["seconds"] >= 0
    assert events[-1]["done"] == 125


def test_first_audio_comes_while_the_lm_is_writing(server: EmbeddedServer) -> None:
    settings = {"duration_s": np.array([40.0], np.float32), "min_duration_s": np.array([40.0], np.float32)}
    with Raw(server.url) as raw:
        seen = []
        for response in raw.stream("song", SONG | settings | {"events": np.array([True])}, timeout=60):
            if "AUDIO" in response:
                seen.append("AUDIO")
            elif "EVENT" in response:
                seen.append(json.loads(response["EVENT"][0])["stage"])
    assert "lm" in seen[seen.index("AUDIO") :], "the LM was done before the first audio"


def test_several_songs_at_once_are_the_songs_alone(client: Client) -> None:
    wanted = [{"seed": seed, "cfg_scale": scale} for seed, scale in ((1, 1.5), (2, 1.0), (3, 2.0), (1, 1.5))]

    def make(settings: dict[str, float]) -> np.ndarray:
        return client.song(lyrics=LYRICS, tags=TAGS, duration_s=6.0, codec_window=93, codec_steps=2, **settings).audio  # type: ignore[arg-type]

    alone = [make(settings) for settings in wanted]
    together: list[np.ndarray | None] = [None] * len(wanted)

    def work(index: int) -> None:
        together[index] = make(wanted[index])

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(wanted))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(alone, together, strict=True):
        assert other is not None
        assert np.array_equal(one, other)
    assert not np.array_equal(alone[0], alone[1])


def test_finished_codes_are_decoded_without_the_lm(client: Client, expected: tuple[np.ndarray, np.ndarray]) -> None:
    song = client.song(codes=expected[1], codec_window=93, codec_steps=3, seed=5)
    assert np.array_equal(song.audio, expected[0])
    assert song.report.raw["ended_by"] == "codes"


def test_heartmula_alone(server: EmbeddedServer, expected: tuple[np.ndarray, np.ndarray]) -> None:
    inputs = {k: v for k, v in SONG.items() if not k.startswith("codec")}
    with Raw(server.url) as raw:
        responses = [r for r in raw.stream("heartmula", inputs) if r]
    codes = np.concatenate([r["CODES"] for r in responses if "CODES" in r], axis=1)
    assert np.array_equal(codes, expected[1])
    assert json.loads(responses[-1]["REPORT"][0])["frames"] == codes.shape[1]


def test_heartcodec_and_its_decoder_alone(
    server: EmbeddedServer, local: InProcessStages, repository: Repository
) -> None:
    codes = np.random.default_rng(0).integers(0, 256, (8, 93)).astype(np.int32)
    with Raw(server.url) as raw:
        window = raw.infer("heartcodec", {"codes": codes, "seed": np.array([9]), "codec_steps": np.array([2])})
        assert window["AUDIO"].shape == (2, 93 * FRAME_HOP)
        latents = window["LATENTS"]
        half = repository.preset.codec.latent_hidden_dim
        channels = np.ascontiguousarray(latents.reshape(-1, 2, half).transpose(1, 2, 0))
        audio = raw.infer("heartcodec_decoder", {"latents": channels})["audio"][:, 0]
        np.testing.assert_allclose(audio, window["AUDIO"], atol=1e-5)
        # A second window that goes on from the first: context and history make its start exact.
        more = raw.infer(
            "heartcodec",
            {
                "codes": codes,
                "window_index": np.array([1]),
                "context_latents": latents[-26:],
                "history_latents": latents[-26 - DECODER_HISTORY : -26],
                "codec_steps": np.array([2]),
                "seed": np.array([9]),
            },
        )
    hop = repository.preset.codec.latent_hop
    np.testing.assert_allclose(more["AUDIO"][:, : 24 * hop], window["AUDIO"][:, -26 * hop : -2 * hop], atol=1e-5)


@pytest.mark.parametrize("file_format", ["wav", "flac", "mp3", "ogg"])
def test_render_gives_one_file(client: Client, expected: tuple[np.ndarray, np.ndarray], file_format: str) -> None:
    data, report = client.render(lyrics=LYRICS, tags=TAGS, file_format=file_format, **KEYWORDS)
    audio, rate = soundfile.read(io.BytesIO(data), always_2d=True)
    assert rate == 48_000
    assert audio.shape == (125 * FRAME_HOP, 2)
    if file_format in ("wav", "flac"):
        np.testing.assert_allclose(audio.T, expected[0], atol=2e-7)
    assert report.random_weights
    assert report.raw["format"] == file_format
    assert (report.signed, report.raw["unsigned_because"]) == (False, "the server was started without keys")


def test_raw_and_local_settings_have_the_same_defaults(server: EmbeddedServer) -> None:
    with Raw(server.url) as raw:
        responses = list(raw.stream("song", {"lyrics": text("la"), "duration_s": np.array([1.0], np.float32)}))
    report = json.loads(responses[-1]["REPORT"][0])
    assert report["settings"]["codec_window"] == 372
    assert report["settings"]["cfg_scale"] == 1.5


def test_log_holds_no_lyrics(server: EmbeddedServer, client: Client) -> None:
    client.song(lyrics="xylophonic quetzal", tags="zither", duration_s=1.0)
    assert server.options.log_path is not None
    log = Path(server.options.log_path).read_text(errors="replace")
    assert "loaded song" in log
    assert "xylophonic" not in log
    assert "zither" not in log
