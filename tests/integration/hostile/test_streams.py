"""Hostile calls rather than requests: streams of several, jobs of others, bytes that are no message, closed doors."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from typing import Any
from zlib import crc32

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb

from heartvoice.server.command_line import ADMIN_HEADER
from heartvoice.server.server import EmbeddedServer
from tests.support.hostile.case import DEADLINE_S, Watch, answer, check_error, check_good, f32, i64, one
from tests.support.hostile.tensor_cases import voice
from tests.support.raw import Raw, request

SERVICE = "/inference.GRPCInferenceService/"
CODES = {"codes": np.zeros((8, 1), np.int32), "codec_steps": i64(1)}


@pytest.fixture
def raw(server: EmbeddedServer) -> Iterator[Raw]:
    """A channel; afterwards every process is the one that it was."""
    with Raw(server.url) as made, Watch(server).over(400.0):
        yield made


def named(inputs: dict[str, np.ndarray], name: str, model: str = "song") -> Any:
    message = request(model, inputs)
    message.id = name
    return message


# -------------------------------------------------------------------------------------------------------------- streams


def test_a_bad_request_among_good_ones_of_a_stream_fails_alone(raw: Raw) -> None:
    bad = {"codes": np.full((8, 1), -1, np.int32)}
    messages = [named(CODES, "first"), named(bad, "bad"), named(CODES, "second"), named(CODES, "unknown", "no_such")]
    done: dict[str, int] = {}
    errors = []
    for response in raw.stub.ModelStreamInfer(iter(messages), timeout=DEADLINE_S):
        if response.error_message:
            errors.append(response.error_message)
        elif response.infer_response.outputs:
            done[response.infer_response.id] = done.get(response.infer_response.id, 0) + 1
    assert sorted(done) == ["first", "second"]
    assert len(errors) == 2
    for error in errors:
        check_error(error, "codes: expected values|no_such")


def test_a_hundred_requests_of_a_stream_are_answered_or_refused_with_the_numbers(raw: Raw) -> None:
    answered = refused = 0
    for response in raw.stub.ModelStreamInfer(iter([named(CODES, str(n)) for n in range(100)]), timeout=DEADLINE_S):
        if response.error_message:
            check_error(response.error_message, "UNAVAILABLE: song: 4 jobs running and 8 waiting, no room for more")
            refused += 1
        elif any(output.name == "REPORT" for output in response.infer_response.outputs):
            answered += 1
    assert answered + refused == 100
    assert answered >= 12


def test_a_stream_of_nothing_ends(raw: Raw) -> None:
    assert list(raw.stub.ModelStreamInfer(iter([]), timeout=DEADLINE_S)) == []


def test_a_streamed_model_is_not_called_as_a_unary_one(raw: Raw) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        raw.stub.ModelInfer(request("song", CODES), timeout=DEADLINE_S)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("data", [b"\xff" * 100, b"\x0a\xff\xff\xff\xff\x07" + b"x" * 50, os.urandom(4096)])
def test_bytes_that_are_no_message_are_refused(raw: Raw, data: bytes) -> None:
    call = raw.channel.unary_unary(SERVICE + "ModelInfer", lambda value: value, lambda value: value)
    with pytest.raises(grpc.RpcError) as caught:
        call(data, timeout=DEADLINE_S)
    assert caught.value.code() in (grpc.StatusCode.INTERNAL, grpc.StatusCode.INVALID_ARGUMENT)


def test_a_method_that_is_none_is_refused(raw: Raw) -> None:
    call = raw.channel.unary_unary(SERVICE + "Shutdown", lambda value: value, lambda value: value)
    with pytest.raises(grpc.RpcError) as caught:
        call(b"", timeout=DEADLINE_S)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


# --------------------------------------------------------------------------------------------------- the jobs of others


def a_long_song(raw: Raw, **more: np.ndarray) -> tuple[Any, threading.Event, list[str]]:
    """A song of a minute under way at `heartmula`, an event for its first codes, and its error when it has ended."""
    inputs = {"lyrics": one(b"la"), "duration_s": f32(60.0), "min_duration_s": f32(60.0)}
    call = raw.call("heartmula", inputs | more, timeout=60.0)
    begun, ended = threading.Event(), list[str]()

    def read() -> None:
        try:
            for response in call:
                begun.set()
                if response.error_message:
                    ended.append(response.error_message)
                    return
            ended.append("")
        except grpc.RpcError as error:
            ended.append(f"{error.code().name}")

    threading.Thread(target=read, daemon=True).start()
    assert begun.wait(DEADLINE_S)
    return call, begun, ended


def test_a_cancel_without_a_name_ends_nobody_elses_job(raw: Raw) -> None:
    call, _, ended = a_long_song(raw)
    error, _ = answer(raw, request("heartmula", {"cancel": one(b"")}))
    check_error(error, "^INVALID_ARG: cancel: expected a job_id")
    assert not ended, "a stranger's empty cancel ended the song"
    call.cancel()


def test_a_job_id_of_no_text_does_not_stand_in_the_way_of_other_cancels(raw: Raw) -> None:
    call, _, _ = a_long_song(raw, job_id=one(b"\xff\xfe"))
    assert answer(raw, request("heartmula", {"cancel": one(b"somebody's")}))[0] == ""
    assert answer(raw, request("heartmula", {"cancel": one(b"\xff\xfe")}))[0] == ""
    call.cancel()


@pytest.mark.parametrize("pid", [-1, 0, 2**63 - 1, -(2**63)])
def test_a_job_whose_owner_cannot_live_is_cancelled(raw: Raw, pid: int) -> None:
    inputs = {"lyrics": one(b"la"), "duration_s": f32(240.0), "min_duration_s": f32(240.0), "owner_pid": i64(pid)}
    error, _ = answer(raw, request("heartmula", inputs))
    check_error(error, "^CANCELLED")


def test_a_voice_is_not_found_by_the_beginning_of_its_key(raw: Raw) -> None:
    """Keys are sha256 of the samples: whoever knows one has the voice already."""
    known = {"voice_audio": voice(), "voice_sample_rate": i64(16_000)}
    vocals = {"vocals": voice(0.3, 44_100)[0], "voice_consent": one(b"me"), "svc_steps": i64(1)}
    error, got = answer(raw, request("svc", vocals | known))
    assert not error, error
    report = next(response["REPORT"] for response in got if "REPORT" in response)[0]
    key = json.loads(report)["voice_sha256"].encode()
    assert answer(raw, request("svc", vocals | {"voice_key": one(key)}))[0] == ""
    for guess in (key[:12], key.upper(), key + b"0", key[:-1], b"%", b"*"):
        check_error(answer(raw, request("svc", vocals | {"voice_key": one(guess)}))[0], "^NOT_FOUND: voice_key")


@pytest.mark.parametrize(
    ("at", "value"), [(4, 3e38), (5, 0.5), (6, 1e9), (9, 2.0), (10, 1e6), (13, 3e38), (-1, 1e30), (-1, np.nan)]
)
def test_a_real_state_with_a_forged_number_is_refused(raw: Raw, at: int, value: float) -> None:
    """With a checksum that fits, and the owner that it had: anyone who gets a state can make that."""
    inputs = {
        "vocals": voice(0.3, 44_100)[0], "voice_audio": voice(), "voice_sample_rate": i64(16_000),
        "voice_consent": one(b"me"), "svc_steps": i64(1), "live": np.array([True]), "more": np.array([True]),
    }  # fmt: skip
    error, got = answer(raw, request("svc", inputs))
    assert not error, error
    state = next(response["STATE"] for response in got if "STATE" in response).copy()
    assert answer(raw, request("svc", inputs | {"state": state}))[0] == ""
    state[3 + at if at >= 0 else at] = value
    state[1], state[2] = divmod(crc32(state[3:].tobytes()), 2**16)
    check_error(answer(raw, request("svc", inputs | {"state": state}))[0], "^INVALID_ARG: state: expected")


# --------------------------------------------------------------------------------------------------------- closed doors

ADMIN = [
    ("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name="song")),
    ("RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name="song")),
    ("RepositoryIndex", pb.RepositoryIndexRequest()),
    ("SystemSharedMemoryStatus", pb.SystemSharedMemoryStatusRequest()),
    ("SystemSharedMemoryRegister", pb.SystemSharedMemoryRegisterRequest(name="a", key="/b", byte_size=2**40)),
    ("SystemSharedMemoryUnregister", pb.SystemSharedMemoryUnregisterRequest()),
    ("CudaSharedMemoryStatus", pb.CudaSharedMemoryStatusRequest()),
    ("CudaSharedMemoryRegister", pb.CudaSharedMemoryRegisterRequest(name="a", raw_handle=b"\0" * 64)),
    ("CudaSharedMemoryUnregister", pb.CudaSharedMemoryUnregisterRequest()),
    ("TraceSetting", pb.TraceSettingRequest()),
    ("LogSettings", pb.LogSettingsRequest()),
]


@pytest.mark.parametrize("key", [None, "", "0" * 32, "*"], ids=["no key", "an empty key", "a guess", "a wildcard"])
def test_every_admin_call_needs_the_key(raw: Raw, key: str | None) -> None:
    metadata = None if key is None else ((ADMIN_HEADER, key),)
    for method, message in ADMIN:
        with pytest.raises(grpc.RpcError) as caught:
            getattr(raw.stub, method)(message, metadata=metadata, timeout=60)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE, method
        assert "restricted" in caught.value.details(), method


def test_a_model_cannot_be_brought_along(raw: Raw) -> None:
    """`load_model(files=...)` would run a stranger's Python."""
    message = pb.RepositoryModelLoadRequest(model_name="evil")
    message.parameters["config"].string_param = '{"backend": "python"}'
    message.parameters["file:1/model.py"].bytes_param = b"import os; os._exit(1)"
    with pytest.raises(grpc.RpcError) as caught:
        raw.stub.RepositoryModelLoad(message, timeout=60)
    assert "restricted" in caught.value.details()


# ------------------------------------------------------------------------------------------------------- and afterwards


def test_after_all_of_this_the_long_way_still_works(raw: Raw) -> None:
    """A cover goes through every model but those of songs."""
    check_good(raw, "song")
    check_good(raw, "heartmula")
    inputs = {
        "audio": voice(3.5, 44_100), "sample_rate": i64(44_100), "voice_audio": voice(), "no_vocals": one(b"convert"),
        "voice_sample_rate": i64(16_000), "voice_consent": one(b"me"), "svc_steps": i64(1),
    }  # fmt: skip
    error, got = answer(raw, request("cover", inputs), timeout_s=60.0)
    assert not error, error
    assert sum(response["AUDIO"].shape[1] for response in got if "AUDIO" in response) == 3.5 * 48_000
