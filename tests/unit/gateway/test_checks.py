"""What passes the contract's check, and how each fault is named."""

from __future__ import annotations

import re
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from heartvoice.client import wire as client_wire
from heartvoice.client.recordings import as_recording
from heartvoice.client.requests import as_cover, as_request
from heartvoice.contracts.models import MODELS
from heartvoice.contracts.types import Axis, TensorSpec
from heartvoice.errors import HeartvoiceError, InvalidRequestError, UnknownModelError
from heartvoice.gateway import request_parser
from heartvoice.gateway.checks import INTERNAL_INPUTS, check_request

ABOVE = 3002
"""One frame more than the contract's limit."""


def element(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data


def a_request(model: str = "song", **inputs: tuple[str, list[int], bytes]) -> Any:
    message = service_pb2.ModelInferRequest(model_name=model, id="0123")
    for name, (datatype, shape, raw) in inputs.items():
        message.inputs.add(name=name, datatype=datatype, shape=shape)
        message.raw_input_contents.append(raw)
    return message


LYRICS = ("BYTES", [1], element(b"la la"))
CODES = ("INT32", [8, 2], bytes(64))


def check(message: Any) -> str:
    return check_request(request_parser.split(message.SerializeToString()), MODELS).name


def refusal(message: Any) -> str:
    with pytest.raises(InvalidRequestError) as caught:
        check(message)
    return str(caught.value)


def test_unknown_models_are_named_in_tritons_words() -> None:
    with pytest.raises(
        UnknownModelError, match=r"^Request for unknown model: 'nothing' is not found; .* song, cover, "
    ):
        check(a_request("nothing"))


def sample(spec: TensorSpec) -> tuple[str, list[int], bytes]:
    """An input of the least size that a contract allows."""
    shape = [axis.min if isinstance(axis, Axis) else axis for axis in spec.shape]
    if spec.dtype == "BYTES":
        return spec.dtype, shape, element(b"x")
    itemsize = {"FP32": 4, "INT32": 4, "INT64": 8, "BOOL": 1}[spec.dtype]
    return spec.dtype, shape, bytes(itemsize * int(np.prod(shape)))


@pytest.mark.parametrize("model", MODELS)
def test_every_input_of_every_model_passes(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Each tensor alone: together, a song's codes, a file and its samples exclude each other.
    monkeypatch.setattr("heartvoice.gateway.checks.check_rules", lambda *_: None)
    spec = MODELS[model]
    inputs = {tensor.name: sample(tensor) for tensor in spec.all_inputs if tensor.name not in INTERNAL_INPUTS}
    if spec.max_batch_size:
        inputs = {
            name: (dtype, [spec.max_batch_size, *shape], raw * spec.max_batch_size)
            for name, (dtype, shape, raw) in inputs.items()
        }
    assert check(a_request(model, **inputs)) == model


def test_what_our_clients_send_passes() -> None:
    samples = np.full((2, 4 * 48_000), 0.1, np.float32)
    voice = as_recording((samples, 48_000))
    song = as_request("la", "pop", voice=voice, consent="me", duration_s=8.0, seed=7, live=True)
    cover = as_cover(voice, voice, consent="me")
    assert check(client_wire.encode_job(song, request_id="ab" * 16, events=True)) == "song"
    assert check(client_wire.encode_job(cover, events=True)) == "cover"
    assert check(client_wire.encode_render(song, "flac")) == "render"
    assert check(client_wire.encode_stems(voice, "vocals,drums", events=True)) == "demucs"
    assert check(client_wire.encode_embed(voice)) == "speaker_encoder"


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (a_request(lyric=LYRICS), "'lyric': song has no such input"),
        (a_request(lyrics=("FP32", [1], bytes(4))), r"lyrics: expected BYTES \[1\], got FP32 \[1\]"),
        (a_request(codes=("INT32", [ABOVE], b"")), rf"codes: .* \[8, frame of 1 to 3001\], got .* \[{ABOVE}\]"),
        (a_request(codes=("INT32", [8, ABOVE], b"")), rf"codes: .*, got INT32 \[8, {ABOVE}\]"),
        (a_request(codes=("INT32", [8, -1], b"")), r"codes: .*, got INT32 \[8, -1\]"),
        (a_request(codes=("INT32", [8, 0], b"")), r"codes: .*, got INT32 \[8, 0\]"),
        (a_request(codes=("INT32", [7, 2], bytes(56))), r"codes: .*, got INT32 \[7, 2\]"),
        (a_request(codes=("INT32", [8, 2, 1], bytes(64))), r"codes: .*, got INT32 \[8, 2, 1\]"),
        (a_request(codes=("INT32", [1] * 9999, b"")), r"got INT32 \[1, 1, 1, 1, 1, 1, 1, 1\] and 9991 more axes"),
        (a_request(codes=("INT32", [8, 2], bytes(63))), r"codes: expected 64 bytes for \[8, 2\], got 63"),
        (a_request(codes=("INT32", [8, 2], bytes(65))), r"codes: expected 64 bytes for \[8, 2\], got 65"),
        (a_request(lyrics=("BYTES", [1], b"")), "lyrics: expected 1 elements, .* got 0 bytes"),
        (a_request(lyrics=("BYTES", [1], b"\x01\x00")), "lyrics: expected 1 elements, .* got 2 bytes"),
        (a_request(lyrics=("BYTES", [1], struct.pack("<I", 9) + b"la")), "lyrics: expected 1 elements, .* got 6 bytes"),
        (a_request(lyrics=("BYTES", [1], element(b"la") + b"x")), "lyrics: expected 1 elements, .* got 7 bytes"),
        (a_request(lyrics=("BYTES", [1], b"\xff\xff\xff\xff")), "lyrics: expected 1 elements, .* got 4 bytes"),
        (a_request(lyrics=("BYTES", [1], element(b"x" * 20_001))), "lyrics: expected at most 20000 UTF-8 bytes"),
        (a_request(auto_pitch=("BYTES", [1], element(b"x" * 257))), "auto_pitch: expected only with a voice"),
        (a_request(lyrics=LYRICS, unknown_words=("BYTES", [1], element(b"sing"))), "nearest, skip, refuse, got 'sing'"),
        (a_request("vocoder"), r"mel: missing, expected FP32 \[mel_band, vocoder_frame\]"),
        (a_request("vocoder", mel=("FP32", [5, 1, 1], bytes(20))), r"mel: expected FP32 \[batch of 1 to 4, "),
    ],
)  # fmt: skip
def test_wrong_tensors_are_named_with_limit_and_value(message: Any, text: str) -> None:
    assert re.search(text, refusal(message)), refusal(message)


@pytest.mark.parametrize("name", sorted(INTERNAL_INPUTS))
def test_inputs_of_the_server_itself_are_refused(name: str) -> None:
    given = ("INT64", [1], bytes(8)) if name == "owner_pid" else ("BYTES", [1], element(b""))
    assert refusal(a_request("heartmula", lyrics=LYRICS, **{name: given})).startswith(f"{name}: expected nothing")


@given(st.data())
def test_damaged_requests_pass_or_are_refused_and_nothing_else(data: st.DataObject) -> None:
    whole = bytearray(a_request(lyrics=LYRICS, codes=CODES, seed=("INT64", [1], bytes(8))).SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        spec = check_request(request_parser.split(bytes(whole)), MODELS)
    except HeartvoiceError:
        return
    message = service_pb2.ModelInferRequest.FromString(bytes(whole))
    assert message.model_name == spec.name
    assert {tensor.name for tensor in message.inputs} <= {tensor.name for tensor in spec.all_inputs}


def test_raw_contents_must_be_as_many_as_inputs() -> None:
    message = a_request(lyrics=LYRICS, codes=CODES)
    message.raw_input_contents.pop()
    assert refusal(message) == "raw_input_contents: expected one for each of 2 inputs, got 1"
    message.raw_input_contents.extend([b"", b""])
    assert refusal(message) == "raw_input_contents: expected one for each of 2 inputs, got 3"


def test_an_input_given_twice_is_refused() -> None:
    message = a_request(lyrics=LYRICS)
    message.inputs.append(message.inputs[0])
    message.raw_input_contents.append(LYRICS[2])
    assert "got one of them twice" in refusal(message)


def with_contents(**contents: object) -> Any:
    message = service_pb2.ModelInferRequest(model_name="song")
    tensor = message.inputs.add(name="lyrics", datatype="BYTES", shape=[1])
    for field, values in contents.items():
        getattr(tensor.contents, field).extend(values)
    return message


def test_typed_contents_pass_where_they_are_complete() -> None:
    assert check(with_contents(bytes_contents=[b"la la"])) == "song"
    assert refusal(with_contents()) == "lyrics: expected 1 bytes_contents, got 0"
    assert refusal(with_contents(bytes_contents=[b"la", b"la"])) == "lyrics: expected 1 bytes_contents, got 2"
    assert "and fp32_contents" in refusal(with_contents(bytes_contents=[b"la"], fp32_contents=[1.0]))
    assert "at most 20000 UTF-8 bytes, got 20001" in refusal(with_contents(bytes_contents=[b"x" * 20_001]))


def test_contents_beside_raw_contents_are_refused() -> None:
    message = with_contents(bytes_contents=[b"la la"])
    message.raw_input_contents.append(LYRICS[2])
    assert refusal(message) == "lyrics: expected contents or raw_input_contents, got both"


@pytest.mark.parametrize("name", ["shared_memory_region", "shared_memory_offset", "binary_data_size"])
def test_shared_memory_and_other_parameters_are_refused(name: str) -> None:
    of_input, of_request, of_output = (a_request(lyrics=LYRICS) for _ in range(3))
    of_input.inputs[0].parameters[name].string_param = "x"
    of_request.parameters[name].int64_param = 1
    of_output.outputs.add(name="AUDIO").parameters[name].int64_param = 1
    assert refusal(of_input) == f"lyrics: parameters: expected none, got {name!r}"
    assert refusal(of_request) == f"parameters: expected triton_enable_empty_final_response, got {name!r}"
    assert refusal(of_output) == f"AUDIO: parameters: expected none, got {name!r}"


def test_outputs_must_be_the_models() -> None:
    message = a_request(lyrics=LYRICS)
    message.outputs.add(name="AUDIO")
    assert check(message) == "song"
    message.outputs.add(name="SECRET")
    assert "song has AUDIO, CODES, EVENT, REPORT, START, STEMS, got 'SECRET'" in refusal(message)


@pytest.mark.parametrize("request_id", ["x" * 129, "a\nb", "é", "\x1b[0m"])
def test_ids_that_a_log_should_not_see_are_refused(request_id: str) -> None:
    message = a_request(lyrics=LYRICS)
    message.id = request_id
    assert refusal(message).startswith("id: expected at most 128 printable ASCII characters")


def test_versions_are_numbers() -> None:
    message = a_request(lyrics=LYRICS)
    message.model_version = "1"
    assert check(message) == "song"
    message.model_version = "../1"
    assert refusal(message) == "model_version: expected a number or nothing, got '../1'"
