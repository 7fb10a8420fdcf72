"""What a caller can get wrong, through gRPC: refused with field, limit and value; the server goes on."""

from __future__ import annotations

import re
from pathlib import Path

import grpc
import numpy as np
import pytest

from heartvoice.runtime.repository import Repository
from heartvoice.server.server import EmbeddedServer
from tests.fakes.networks import text
from tests.support.callers import heartvoice, listing
from tests.support.music import encode, speaker
from tests.support.raw import Raw

OK = {"lyrics": text("la"), "duration_s": np.array([1.0], np.float32)}


def f32(value: float) -> np.ndarray:
    return np.array([value], np.float32)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"lyrics": text(""), "tags": text("")}, "INVALID_ARG: lyrics, tags: expected text"),
        ({}, "INVALID_ARG: lyrics, tags: expected text"),
        ({"lyrics": text("la " * 33_334)}, "INVALID_ARG: lyrics: expected at most 20000 UTF-8 bytes, got 100002"),
        ({"lyrics": text("la\x1b[31m")}, "control characters, got U\\+001B at 2"),
        ({"lyrics": np.array([b"\xff\xfe"], object)}, "INVALID_ARG: lyrics: expected UTF-8"),
        (OK | {"duration_s": f32(0)}, "INVALID_ARG: duration_s: expected 1 to 240 s, got 0"),
        (OK | {"duration_s": f32(-3)}, "duration_s: expected 1 to 240 s, got -3"),
        (OK | {"duration_s": f32(1e9)}, "duration_s: expected 1 to 240 s, got 1000000000"),
        (OK | {"duration_s": f32(np.nan)}, "duration_s: expected 1 to 240 s, got nan"),
        ({"lyrics": text("la " * 1300), "duration_s": f32(240)}, "duration_s: .*the limit is 3584"),
        (OK | {"top_k": np.array([0])}, "top_k: expected 1 to 1000, got 0"),
        (OK | {"top_k": np.array([1001])}, "top_k: expected 1 to 1000, got 1001"),
        (OK | {"cfg_scale": f32(0.5)}, "cfg_scale: expected 1 to 10, got 0.5"),
        (OK | {"codec_window": np.array([100])}, "codec_window"),
        (OK | {"codes": np.full((8, 4), 256, np.int32)}, r"codes: expected values in \[0, 256\), got 256"),
        (OK | {"codes": np.zeros((8, 0), np.int32)}, "codes"),
        (OK | {"style": np.full(32, np.nan, np.float32)}, "style: expected finite"),
        (OK | {"style": np.zeros(7, np.float32)}, r"style: expected FP32 \[32\]"),
    ],
)
def test_song_refuses(server: EmbeddedServer, inputs: dict[str, np.ndarray], message: str) -> None:
    with Raw(server.url) as raw:
        responses = list(raw.stream("song", inputs))
    assert len(responses) == 1
    error = responses[0]["error"]
    assert error.startswith("INVALID_ARG: ")

    assert re.search(message, error), error
    assert "/" not in error.replace("I/O", ""), "no path of the server may leak"


@pytest.mark.parametrize(
    "inputs",
    [
        OK | {"duration_s": np.array([1.0])},  # FP64
        OK | {"top_k": np.array([1], np.int32)},
        OK | {"seed": np.array([1, 2])},
        OK | {"codes": np.zeros((7, 4), np.int32)},
        OK | {"no_such_setting": f32(1)},
    ],
    ids=["fp64", "int32", "two values", "seven codebooks", "unknown"],
)
def test_wrong_dtype_shape_and_name_are_refused_by_the_server(
    server: EmbeddedServer, inputs: dict[str, np.ndarray]
) -> None:
    with Raw(server.url) as raw:
        responses = list(raw.stream("song", inputs))
        assert list(responses[0]) == ["error"]
        name = next(name for name in inputs if name not in OK or inputs[name] is not OK[name])
        assert name in responses[0]["error"]
        assert "AUDIO" in next(raw.stream("song", OK)), "the server goes on"


def test_unary_models_answer_with_a_status(server: EmbeddedServer) -> None:
    with Raw(server.url) as raw:
        for model, inputs, message in (
            ("heartcodec", {}, "codes: missing"),
            (
                "heartcodec",
                {"codes": np.zeros((8, 373), np.int32)},
                "codes: expected INT32 [8, window_frame of 1 to 372], got INT32 [8, 373]",
            ),
            ("render", OK | {"format": text("exe")}, "format: expected one of wav, flac, mp3, ogg, got 'exe'"),
            ("render", OK | {"duration_s": f32(-1)}, "duration_s"),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                raw.infer(model, inputs)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert message in caught.value.details()


NO_SOUND, SILENCE, VOICE = "readme.md", "silence.wav", "voice.wav"
WHOSE = ("--voice", VOICE, "--consent", "me")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("song", "--lyrics", "la " * 1300, "--duration", "240"), "--duration: prompt .* the limit is 3584; shorten"),
        (("song", "--lyrics", "la", "--voice", NO_SOUND, "--consent", "me"), "--voice readme.md: expected WAV"),
        (("song", "--lyrics", "la", *WHOSE[:3], ""), "--consent: missing"),
        (("song", "--tags", "x" * 30_000), "--tags: expected at most"),
        (("song", "--lyrics", "la", "--duration", "9999"), "--duration: expected 1 to 240 s, got 9999.0"),
        (("song", "--lyrics", "la", "-o", "no/song.wav"), "--output: no such folder"),
        (("cover", NO_SOUND, *WHOSE), "recording readme.md: expected WAV"),
        (("cover", VOICE, "--voice", NO_SOUND, *WHOSE[2:]), "--voice readme.md: expected WAV"),
        (("cover", VOICE, "--voice", SILENCE, *WHOSE[2:]), "--voice silence.wav: "),
        (("cover", VOICE, *WHOSE, "--no-vocals", "keep"), "--no-vocals: expected one of"),
        (("separate", NO_SOUND), "recording readme.md: expected WAV"),
        (("separate", VOICE, "--sources", "tuba"), "--sources: expected some of .*, got tuba"),
        (("similarity", VOICE, NO_SOUND), "B readme.md: expected WAV"),
        (("similarity", SILENCE, VOICE), "A silence.wav: .*silence"),
        (("similarity", VOICE, VOICE, "--reference-check", "no"), "--reference-check: expected one of"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else None,
)
def test_what_would_be_refused_starts_no_server(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], error: str
) -> None:
    def start(*_: object) -> None:
        raise AssertionError("a server was started")

    monkeypatch.setattr(EmbeddedServer, "start", start)
    monkeypatch.chdir(tmp_path)
    Path(NO_SOUND).write_text("# heartvoice")
    Path(VOICE).write_bytes(encode(speaker(4.0, 16_000), 16_000))
    Path(SILENCE).write_bytes(encode(np.zeros(4 * 16_000, np.float32), 16_000))
    result = heartvoice(arguments[0], "--serve", str(repository.root), *arguments[1:])
    assert result.exit_code == 2, result.stderr
    assert re.match(f"error: {error}", result.stderr), result.stderr
    assert listing(tmp_path) == sorted((NO_SOUND, SILENCE, VOICE))


def test_admin_calls_need_the_key(server: EmbeddedServer) -> None:
    from tritonclient.grpc import service_pb2 as pb

    with Raw(server.url) as raw:
        for call, message in (
            (raw.stub.RepositoryModelUnload, pb.RepositoryModelUnloadRequest(model_name="song")),
            (raw.stub.RepositoryModelLoad, pb.RepositoryModelLoadRequest(model_name="song")),
            (raw.stub.RepositoryIndex, pb.RepositoryIndexRequest()),
            (raw.stub.SystemSharedMemoryRegister, pb.SystemSharedMemoryRegisterRequest(name="a", key="b", byte_size=1)),
            (raw.stub.TraceSetting, pb.TraceSettingRequest()),
            (raw.stub.LogSettings, pb.LogSettingsRequest()),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                call(message, timeout=60)
            assert "restricted" in caught.value.details() or caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert raw.stub.ModelReady(pb.ModelReadyRequest(name="song"), timeout=60).ready
