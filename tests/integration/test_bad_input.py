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


def test_a_song_that_cannot_be_made_starts_no_server_of_its_own(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = heartvoice("song", "--serve", str(repository.root), "--lyrics", "la " * 1300, "--duration", "240")
    assert (result.exit_code, listing(tmp_path)) == (2, [])
    assert re.fullmatch(
        r"error: duration_s: prompt .* the limit is 3584; shorten the lyrics or the song\n", result.stderr
    )


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
