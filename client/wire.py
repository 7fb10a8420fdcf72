"""Requests and arrays into KServe messages and back, and errors out of their texts. Pure functions, no I/O."""

from __future__ import annotations

import json
import math
import re
import struct
from typing import Any

import numpy as np
from tritonclient.grpc import service_pb2

from heartvoice import errors
from heartvoice.client.checks import check_request
from heartvoice.client.messages import Array, AudioChunk, CodesChunk, Event, Message, Report, SongRequest
from heartvoice.contracts import AUDIO_FORMATS, MAX_FILE_BYTES, NUMPY_DTYPE, RENDER, SONG, ModelSpec, TensorSpec
from heartvoice.errors import (
    DeadlineError,
    EngineError,
    HeartvoiceError,
    InvalidRequestError,
    ModelUnavailableError,
    RequestCancelledError,
)

WANT_FINAL = "triton_enable_empty_final_response"
FINAL = "triton_final_response"
_PAYLOADS = ("AUDIO", "CODES")


class ModelMissingError(ModelUnavailableError):
    """There is no such model, or no such server: asking again is no use."""


# ------------------------------------------------------------------------------------------------------- requests


def encode_song(request: SongRequest, *, request_id: str = "", events: bool = False) -> Any:
    """A `ModelInferRequest` to `song`, which asks for the final flag; `events` turns progress events on.

    Raises:
        InvalidRequestError: naming the field, its limit and the value.
    """
    arrays = check_request(request, SONG)
    if events:
        arrays["events"] = np.array([True])
    message = _encode(SONG, arrays, request_id)
    message.parameters[WANT_FINAL].bool_param = True
    return message


def encode_render(request: SongRequest, file_format: str, *, request_id: str = "") -> Any:
    """A `ModelInferRequest` to `render`, for a file of one of `AUDIO_FORMATS`.

    Raises:
        InvalidRequestError: naming the field, its limit and the value.
    """
    if file_format not in AUDIO_FORMATS:
        raise InvalidRequestError(f"format: expected {', '.join(AUDIO_FORMATS)}, got {file_format!r}")
    arrays = check_request(request, RENDER)
    arrays["format"] = np.array([file_format.encode()], dtype=object)
    return _encode(RENDER, arrays, request_id)


def _encode(model: ModelSpec, arrays: dict[str, Array], request_id: str) -> Any:
    message = service_pb2.ModelInferRequest(model_name=model.name, id=request_id)
    for name, array in arrays.items():
        spec = model.input(name)
        message.inputs.add(name=name, datatype=spec.dtype, shape=array.shape)
        message.raw_input_contents.append(to_raw(array, spec))
    return message


def to_raw(array: Array, spec: TensorSpec) -> bytes:
    """An array as KServe's raw contents: little-endian, row-major; every BYTES element behind its uint32 length."""
    if spec.dtype == "BYTES":
        return b"".join(struct.pack("<I", len(item)) + item for item in array.ravel().tolist())
    return np.ascontiguousarray(array, dtype=np.dtype(NUMPY_DTYPE[spec.dtype]).newbyteorder("<")).tobytes()


# ------------------------------------------------------------------------------------------------------ responses


def decode_stream(response: Any) -> tuple[list[Message], bool]:
    """One `ModelStreamInferResponse`: the messages in it, and whether it was the last.

    Raises:
        HeartvoiceError: the response is an error, rebuilt as the class that the server raised.
        EngineError: the response breaks the contract.
    """
    if response.error_message:
        raise error_from_text(response.error_message)
    outputs = _outputs(response.infer_response, SONG)
    messages: list[Message] = []
    if "EVENT" in outputs:
        messages.append(_event(outputs["EVENT"]))
    payloads = [name for name in _PAYLOADS if name in outputs]
    if len(payloads) > 1 or bool(payloads) != ("START" in outputs):
        raise EngineError(f"song: expected AUDIO or CODES together with START, got {', '.join(outputs)}")
    if payloads:
        messages.append(_chunk(payloads[0], outputs[payloads[0]], int(outputs["START"][0])))
    if "REPORT" in outputs:
        messages.append(_report(outputs["REPORT"]))
    final = response.infer_response.parameters[FINAL].bool_param
    if not messages and not final:
        raise EngineError("song: got an empty response that is not the final one")
    return messages, final


def decode_render(response: Any) -> tuple[bytes, Report]:
    """The `ModelInferResponse` of `render`: the encoded file and the report.

    Raises:
        EngineError: the response breaks the contract.
    """
    outputs = _outputs(response, RENDER)
    if set(outputs) != {"FILE", "REPORT"}:
        raise EngineError(f"render: expected FILE and REPORT, got {', '.join(outputs) or 'nothing'}")
    data: bytes = outputs["FILE"][0]
    if not 0 < len(data) <= MAX_FILE_BYTES:
        raise EngineError(f"FILE: expected 1 to {MAX_FILE_BYTES} bytes, got {len(data)}")
    return data, _report(outputs["REPORT"])


def _outputs(response: Any, model: ModelSpec) -> dict[str, Array]:
    """The response's arrays by name, each checked against the contract."""
    if len(response.outputs) != len(response.raw_output_contents):
        raise EngineError(
            f"{model.name}: got {len(response.outputs)} outputs with {len(response.raw_output_contents)} raw contents"
        )
    specs = {spec.name: spec for spec in model.outputs}
    arrays: dict[str, Array] = {}
    for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        if output.name not in specs or output.name in arrays:
            raise EngineError(f"{model.name}: got an output {output.name!r} that the contract does not have there")
        arrays[output.name] = from_raw(raw, output.datatype, tuple(output.shape), specs[output.name])
    return arrays


def from_raw(raw: bytes, datatype: str, shape: tuple[int, ...], spec: TensorSpec) -> Array:
    """KServe's raw contents as a read-only array of the spec's dtype and shape.

    Raises:
        EngineError: dtype, shape or length are not the contract's.
    """
    fits = len(shape) == len(spec.dims) and all(d in (-1, s) for d, s in zip(spec.dims, shape, strict=True))
    if datatype != spec.dtype or not fits:
        raise EngineError(f"{spec.name}: expected {spec.describe()}, got {datatype} {list(shape)}")
    if spec.dtype == "BYTES":  # always one element in this contract
        if len(raw) < 4 or struct.unpack_from("<I", raw)[0] != len(raw) - 4:
            raise EngineError(f"{spec.name}: expected one length and its bytes, got {len(raw)} bytes")
        return np.array([raw[4:]], dtype=object)
    dtype = np.dtype(NUMPY_DTYPE[spec.dtype]).newbyteorder("<")
    if len(raw) != math.prod(shape) * dtype.itemsize:
        raise EngineError(f"{spec.name}: expected {datatype} {list(shape)}, got {len(raw)} bytes")
    return np.frombuffer(raw, dtype).reshape(shape)


def _chunk(name: str, array: Array, start: int) -> Message:
    if not array.size:
        raise EngineError(f"{name}: got an empty chunk at {start}")
    if name == "CODES":
        return CodesChunk(array, start)
    if not np.isfinite(array).all():
        raise EngineError(f"AUDIO: expected finite samples, got NaN or infinite ones in the chunk at {start}")
    return AudioChunk(array, start)


def _event(array: Array) -> Event:
    raw = _json("EVENT", array)
    try:
        return Event(str(raw["stage"]), int(raw["done"]), int(raw["total"]), float(raw["seconds"]))
    except (KeyError, TypeError, ValueError) as error:
        raise EngineError(f"EVENT: expected stage, done, total and seconds, got {raw!r}") from error


def _report(array: Array) -> Report:
    return Report.from_raw(_json("REPORT", array))


def _json(name: str, array: Array) -> Any:
    try:
        return json.loads(array[0])
    except ValueError as error:
        raise EngineError(f"{name}: expected JSON, got {array[0][:80]!r}") from error


# --------------------------------------------------------------------------------------------------------- errors

_PREFIX = re.compile(r"^\[request id: [^\]]*\] ")
_CORE_TEXTS: tuple[tuple[type[HeartvoiceError], re.Pattern[str]], ...] = tuple(
    (error, re.compile("|".join(patterns), re.IGNORECASE))
    for error, *patterns in (
        # What Triton's core says of itself, seen in 2.51.0; in streams the text is all there is.
        (ModelMissingError, "Request for unknown model: .* is not found"),
        (ModelUnavailableError, "Request for unknown model", "no available versions", "is not ready", "is not healthy"),
        (ModelUnavailableError, "Exceeds maximum queue size", "Server exiting", "Server is stopping", "is unloading"),
        (ModelUnavailableError, "Failed to increase the shared memory pool"),
        (InvalidRequestError, "unexpected inference input", "unexpected shape", "unexpected datatype", "data-type is"),
        (InvalidRequestError, "input byte size mismatch", "string data for inference input", "invalid datatype"),
        (InvalidRequestError, r"expected \d+ inputs? but got", "unexpected number of string elements"),
        (DeadlineError, "Request timeout expired"),
    )
)
_BY_STATUS: dict[str, type[HeartvoiceError]] = {
    "INVALID_ARGUMENT": InvalidRequestError,
    "OUT_OF_RANGE": InvalidRequestError,
    "UNAVAILABLE": ModelUnavailableError,
    "RESOURCE_EXHAUSTED": ModelUnavailableError,
    "NOT_FOUND": ModelMissingError,
    "UNIMPLEMENTED": ModelMissingError,
    "UNAUTHENTICATED": ModelMissingError,
    "PERMISSION_DENIED": ModelMissingError,
    "DEADLINE_EXCEEDED": DeadlineError,
    "CANCELLED": RequestCancelledError,
    "ABORTED": RequestCancelledError,
}
_WRONG_SERVER = re.compile(
    r"CERTIFICATE_VERIFY_FAILED|WRONG_VERSION_NUMBER|http1\.x server|Peer name .* is not in peer"
)


def error_from_text(text: str, default: type[HeartvoiceError] = EngineError) -> HeartvoiceError:
    """The error that a text stands for: ours by its wire code, Triton's own by its wording, else `default`."""
    text = _PREFIX.sub("", text).strip()
    ours = errors.from_wire(text, default)
    if str(ours) != text:
        return ours
    for error, pattern in _CORE_TEXTS:
        if pattern.search(text):
            return error(text)
    return default(text)


def error_from_status(status: str, details: str) -> HeartvoiceError:
    """The error of a failed call: its text where that is telling, else gRPC's status name."""
    if status == "RESOURCE_EXHAUSTED" and "larger than max" in details:
        sent = "CLIENT: Sent" in details or "SERVER: Received" in details or details.startswith("Sent")
        return (InvalidRequestError if sent else EngineError)(f"message: {details}")
    if status == "UNAVAILABLE" and _WRONG_SERVER.search(details):
        return ModelMissingError(details)
    default = _BY_STATUS.get(status, EngineError)
    return error_from_text(details or status, default)
