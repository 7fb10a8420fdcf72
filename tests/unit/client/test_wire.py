"""Arrays and errors across the wire, without a wire."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from heartvoice.client import wire
from heartvoice.client.messages import AudioChunk, CodesChunk
from heartvoice.client.requests import SongRequest
from heartvoice.client.wire import error_from_status, error_from_text
from heartvoice.contracts.models import SONG
from heartvoice.contracts.tensors import REPORT
from heartvoice.contracts.types import NUMPY_DTYPE, Axis, TensorSpec
from heartvoice.errors import (
    DeadlineError,
    EngineError,
    HeartvoiceError,
    InvalidRequestError,
    ModelMissingError,
    ModelUnavailableError,
    RequestCancelledError,
)
from tests.fakes.server import infer_response, mix_stems, samples, stream_response

# Texts of tritonserver 2.51.0, as its streams and calls gave them.
CORE_TEXTS: list[tuple[type[HeartvoiceError], str]] = [
    (InvalidRequestError, "unexpected inference input 'foo' for model 'song'"),
    (InvalidRequestError, "inference input 'seed' data-type is 'FP32', but model 'song' expects 'INT64'"),
    (InvalidRequestError, "unexpected shape for input 'seed' for model 'song'. Expected [1], got [2]."),
    (InvalidRequestError, "input byte size mismatch for input 'seed' for model 'song'. Expected 8, got 4"),
    (InvalidRequestError, "incomplete string data for inference input 'lyrics', expecting string of length 255"),
    (InvalidRequestError, "unexpected datatype TYPE_FP32 for input 'seed'"),
    (ModelMissingError, "Request for unknown model: 'nope' is not found"),
    (ModelUnavailableError, "Request for unknown model: 'render' has no available versions"),
    (ModelUnavailableError, "Stub process 'song_0_0' is not healthy."),
    (ModelUnavailableError, "Exceeds maximum queue size"),
    (ModelUnavailableError, "Internal error from Core"),
    (ModelUnavailableError, "Model 'song' is not ready"),
    (DeadlineError, "Request timeout expired"),
    (EngineError, "Failed to process the request(s) for model 'render_0_0', message: ValueError: boom"),
]


@pytest.mark.parametrize(("kind", "text"), CORE_TEXTS)
@pytest.mark.parametrize("prefix", ["", "[request id: abc] "])
def test_tritons_own_texts_become_typed_errors(kind: type[HeartvoiceError], text: str, prefix: str) -> None:
    error = error_from_text(prefix + text)
    assert type(error) is kind
    assert str(error) == text


def test_our_errors_survive_the_wire() -> None:
    for kind in (InvalidRequestError, ModelUnavailableError, RequestCancelledError, DeadlineError, EngineError):
        error = error_from_text(f"[request id: 1] {kind('x: expected 1, got is not ready').wire()}")
        assert type(error) is kind
        assert str(error) == "x: expected 1, got is not ready"


@pytest.mark.parametrize(
    ("details", "kind"),
    [
        ("CLIENT: Sent message larger than max (9 vs. 5)", InvalidRequestError),
        ("SERVER: Received message larger than max (9 vs. 5)", InvalidRequestError),
        ("CLIENT: Received message larger than max (9 vs. 5)", EngineError),
        ("out of room", ModelUnavailableError),
    ],
)
def test_size_limits_are_told_apart_from_overload(details: str, kind: type[HeartvoiceError]) -> None:
    assert type(error_from_status("RESOURCE_EXHAUSTED", details)) is kind


def test_connecting_to_an_http_port_is_not_tried_again() -> None:
    details = "failed to connect; last error: Trying to connect an http1.x server (HTTP status 400)"
    assert type(error_from_status("UNAVAILABLE", details)) is ModelMissingError


@pytest.mark.parametrize("spec", [*SONG.all_inputs, *SONG.outputs], ids=lambda s: s.name)
def test_every_tensor_of_the_contract_survives_the_wire(spec: TensorSpec) -> None:
    check_survives(spec, 10_000)


def check_survives(spec: TensorSpec, longest: int) -> None:
    """Compare a random tensor with what comes back from its bytes; no axis is longer than `longest`."""
    shape = tuple(min(axis.max, longest) if isinstance(axis, Axis) else axis for axis in spec.shape)
    random = np.random.default_rng(0)
    array: Any
    if spec.dtype == "BYTES":
        array = np.array(["é\0x".encode()], dtype=object)
    elif spec.dtype == "FP32":
        array = random.standard_normal(shape, np.float32)
    else:
        array = random.integers(0, 2, shape).astype(NUMPY_DTYPE[spec.dtype])
    back = wire.from_raw(wire.to_raw(array, spec), spec.dtype, shape, spec)
    np.testing.assert_array_equal(back, array)
    assert back.dtype == NUMPY_DTYPE[spec.dtype]


def decode(response: Any) -> Any:
    """`decode_stream`'s one message."""
    (message,), final = wire.decode_stream(response, wire.job_stream(SongRequest()))
    assert not final
    return message


def test_chunks_are_read_only_views() -> None:
    chunk = decode(stream_response({"AUDIO": samples(3, 4), "START": [3]}))
    assert isinstance(chunk, AudioChunk)
    assert not chunk.audio.flags.writeable
    np.testing.assert_array_equal(chunk.audio, samples(3, 4))
    assert isinstance(decode(stream_response({"CODES": np.zeros((8, 2), np.int32), "START": [0]})), CodesChunk)


def broken(**change: Any) -> Any:
    """An audio response with one thing wrong."""
    response = infer_response({"AUDIO": samples(0, 4), "START": [0]})
    output = response.outputs[0]
    if "shape" in change:
        output.shape[:] = change["shape"]
    if "raw" in change:
        response.raw_output_contents[0] = change["raw"]
    output.name = change.get("name", output.name)
    output.datatype = change.get("datatype", output.datatype)
    if change.get("drop"):
        del response.raw_output_contents[1]
    return service_pb2.ModelStreamInferResponse(infer_response=response)


@pytest.mark.parametrize(
    ("response", "text"),
    [
        (broken(shape=[1, 8]), "AUDIO: expected FP32 [2, sample], got FP32 [1, 8]"),
        (broken(shape=[8]), "AUDIO: expected FP32 [2, sample], got FP32 [8]"),
        (broken(datatype="FP64"), "AUDIO: expected FP32 [2, sample], got FP64 [2, 4]"),
        (broken(raw=b"\0" * 31), "AUDIO: expected FP32 [2, 4], got 31 bytes"),
        (broken(shape=[2, 10**6]), "AUDIO: expected FP32 [2, 1000000], got 32 bytes"),
        (broken(shape=[2, -4]), "AUDIO: expected FP32 [2, -4], got 32 bytes"),
        (broken(shape=[2, 0], raw=b""), "AUDIO: got an empty chunk at 0"),
        (broken(raw=b"\xff" * 32), "AUDIO: expected finite samples, got NaN or infinite ones in the chunk at 0"),
        (broken(name="VOCALS"), "song: got an output 'VOCALS' that the contract does not have there"),
        (broken(name="STEMS"), "STEMS: expected FP32 [2, 2, sample], got FP32 [2, 4]"),
        (mix_stems(0, 4), "song: got an output that was not asked for: STEMS, START"),
        (broken(name="START"), "START: expected INT64 [1], got FP32 [2, 4]"),
        (broken(drop=True), "song: got 2 outputs with 1 raw contents"),
        (
            stream_response({"CODES": np.array([[0, -1]] * 8, np.int32), "START": [4]}),
            "CODES: expected codes of at least 0, got -1 in the chunk at 4",
        ),
        (stream_response({"START": [0]}), "song: expected AUDIO or CODES together with START, got START"),
        (stream_response({"AUDIO": samples(0, 4)}), "song: expected AUDIO or CODES together with START, got AUDIO"),
        (stream_response({"EVENT": b'{"stage": "lm"}'}), "EVENT: expected stage, done, total and seconds"),
        (stream_response({"EVENT": b"[]"}), "EVENT: expected stage, done, total and seconds"),
        (stream_response({"REPORT": b"{"}), "REPORT: expected JSON, got b'{'"),
        (stream_response({"REPORT": b"[]"}), "REPORT: expected a JSON object, got list"),
        (stream_response({"REPORT": b"\xff"}), "REPORT: expected JSON"),
    ],
)
def test_responses_that_break_the_contract_are_engine_errors(response: Any, text: str) -> None:
    with pytest.raises(EngineError) as caught:
        wire.decode_stream(response, wire.job_stream(SongRequest()))
    assert str(caught.value).startswith(text)


@pytest.mark.parametrize("raw", [b"", b"\1\0\0\0", b"\1\0\0\0ab", b"\xff\xff\xff\xff"])
def test_byte_strings_with_wrong_lengths_are_engine_errors(raw: bytes) -> None:
    with pytest.raises(EngineError, match="REPORT: expected one length and its bytes"):
        wire.from_raw(raw, "BYTES", (1,), REPORT)
