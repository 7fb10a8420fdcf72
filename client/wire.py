"""Requests and arrays into KServe messages and back, and errors out of their texts. Pure functions, no I/O."""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np
from tritonclient.grpc import service_pb2

from heartvoice import errors
from heartvoice.client.inputs import as_sources, embed_inputs, forget_inputs, job_inputs, render_inputs, stems_inputs
from heartvoice.client.messages import (
    Array,
    AudioChunk,
    CodesChunk,
    Embedding,
    Event,
    ForgetReport,
    Message,
    Report,
    StemsChunk,
    StemsMessage,
    StemsReport,
)
from heartvoice.client.recordings import Recording
from heartvoice.client.requests import CoverRequest, JobRequest
from heartvoice.contracts.constants import MAX_FILE_BYTES, MIX_STEM_NAMES, SAMPLE_RATE_HZ, STEM_RATE_HZ
from heartvoice.contracts.kserve import ENDED_EARLY, FINAL, WANT_FINAL
from heartvoice.contracts.models import COVER, DEMUCS, RENDER, SONG, SPEAKER_ENCODER, SVC, with_voice_ids
from heartvoice.contracts.types import NUMPY_DTYPE, ModelSpec, TensorSpec
from heartvoice.errors import (
    DeadlineError,
    EngineError,
    HeartvoiceError,
    InvalidRequestError,
    ModelMissingError,
    ModelUnavailableError,
)

_UNIT_TOLERANCE = 1e-3
M = TypeVar("M")


# ------------------------------------------------------------------------------------------------------- requests


def encode_job(request: JobRequest, *, request_id: str = "", events: bool = False) -> Any:
    """A `ModelInferRequest` to `song` or `cover`, which asks for the final flag; `events` turns progress events on.

    Raises:
        InvalidRequestError: naming the field, its limit and the value.
    """
    model = COVER if isinstance(request, CoverRequest) else SONG
    return _encode_stream(model, job_inputs(request), request_id, events)


def encode_stems(
    recording: Recording, sources: Sequence[str] | str | None, *, request_id: str = "", events: bool = False
) -> Any:
    """A `ModelInferRequest` to `demucs` for these stems, or for all; otherwise as `encode_job`."""
    return _encode_stream(DEMUCS, stems_inputs(recording, sources), request_id, events)


def encode_forget(voice: Recording, *, request_id: str = "") -> Any:
    """A `ModelInferRequest` to `svc` to forget what it keeps of the voice of this reference."""
    return _encode_stream(SVC, forget_inputs(voice), request_id, events=False)


def encode_embed(recording: Recording, reference_check: str | None = None, *, request_id: str = "") -> Any:
    """A `ModelInferRequest` to `speaker_encoder`."""
    return _encode(SPEAKER_ENCODER, embed_inputs(recording, reference_check), request_id)


def encode_render(request: JobRequest, file_format: str, *, request_id: str = "") -> Any:
    """A `ModelInferRequest` to `render`, for a file of one of `AUDIO_FORMATS`.

    Raises:
        InvalidRequestError: naming the field, its limit and the value.
    """
    return _encode(RENDER, render_inputs(request, file_format), request_id)


def _encode_stream(model: ModelSpec, arrays: dict[str, Array], request_id: str, events: bool) -> Any:
    if events:
        arrays["events"] = np.array([True])
    message = _encode(model, arrays, request_id)
    message.parameters[WANT_FINAL].bool_param = True
    return message


def _encode(model: ModelSpec, arrays: dict[str, Array], request_id: str) -> Any:
    message = service_pb2.ModelInferRequest(model_name=model.name, id=request_id)
    offered = with_voice_ids(model)
    for name, array in arrays.items():
        spec = offered.input(name)
        message.inputs.add(name=name, datatype=spec.dtype, shape=array.shape)
        message.raw_input_contents.append(to_raw(array, spec))
    return message


def to_raw(array: Array, spec: TensorSpec) -> bytes:
    """An array as KServe's raw contents: little-endian, row-major; every BYTES element behind its uint32 length."""
    if spec.dtype == "BYTES":
        return b"".join(struct.pack("<I", len(item)) + item for item in array.ravel().tolist())
    return np.ascontiguousarray(array, dtype=np.dtype(NUMPY_DTYPE[spec.dtype]).newbyteorder("<")).tobytes()


# ------------------------------------------------------------------------------------------------------ responses


@dataclass(frozen=True)
class StreamSpec(Generic[M]):
    """Decoders of a streamed model's outputs. The first payload is required, if there are any.

    Each of `parallel` is a payload that in the end has as many samples as the first.
    """

    model: ModelSpec
    sample_rate_hz: int
    payloads: Mapping[str, Callable[[Array, int], M]]
    event: Callable[[Array], M]
    report: Callable[[Array], M]
    parallel: Sequence[str] = ()


def decode_stream(response: Any, spec: StreamSpec[M]) -> tuple[list[M], bool]:
    """One `ModelStreamInferResponse`: the messages in it, and whether it was the last.

    Raises:
        HeartvoiceError: the response is an error, rebuilt as the class that the server raised.
        EngineError: the response breaks the contract.
    """
    if response.error_message:
        raise error_from_text(response.error_message)
    name = spec.model.name
    outputs = _outputs(response.infer_response, spec.model)
    payloads = [output for output in spec.payloads if output in outputs]
    if set(outputs) - {*spec.payloads, "START", "EVENT", "REPORT"}:
        raise EngineError(f"{name}: got an output that was not asked for: {', '.join(outputs)}")
    if len(payloads) > 1 or bool(payloads) != ("START" in outputs):
        wanted = " or ".join(spec.payloads)
        raise EngineError(f"{name}: expected {wanted} together with START, got {', '.join(outputs)}")
    messages: list[M] = []
    if "EVENT" in outputs:
        messages.append(spec.event(outputs["EVENT"]))
    if payloads:
        (payload,), start = payloads, int(outputs["START"][0])
        if not outputs[payload].size:
            raise EngineError(f"{payload}: got an empty chunk at {start}")
        messages.append(spec.payloads[payload](outputs[payload], start))
    if "REPORT" in outputs:
        messages.append(spec.report(outputs["REPORT"]))
    final = response.infer_response.parameters[FINAL].bool_param
    if not messages and not final:
        raise EngineError(f"{name}: got an empty response that is not the final one")
    return messages, final


def decode_render(response: Any, attempts: int, request: JobRequest) -> tuple[bytes, Report]:
    """The `ModelInferResponse` of `render` to this request, after `attempts`: the encoded file and the report.

    Raises:
        EngineError: the response breaks the contract.
    """
    outputs = _outputs(response, RENDER, complete=True)
    data: bytes = outputs["FILE"][0]
    if not 0 < len(data) <= MAX_FILE_BYTES:
        raise EngineError(f"FILE: expected 1 to {MAX_FILE_BYTES} bytes, got {len(data)}")
    return data, _report(outputs["REPORT"], request).with_attempts(attempts)


def decode_embed(response: Any, attempts: int) -> Embedding:
    """The `ModelInferResponse` of `speaker_encoder`, after `attempts`.

    Raises:
        EngineError: the response breaks the contract.
    """
    outputs = _outputs(response, SPEAKER_ENCODER, complete=True)
    vector, raw = outputs["EMBEDDING"], _json("REPORT", outputs["REPORT"])
    _check_unit("EMBEDDING", vector)
    seconds = raw.get("seconds") if isinstance(raw, dict) else None
    if not isinstance(seconds, int | float) or not isinstance(raw.get("encoder"), str):
        raise EngineError(f"REPORT: expected encoder and seconds, got {raw!r}")
    further = raw.get("vectors", {})
    if not isinstance(further, dict):
        raise EngineError(f"REPORT: expected vectors by engine, got {further!r}")
    for engine, values in further.items():
        try:
            _check_unit(f"REPORT: vectors: {engine}", np.asarray(values, np.float64))
        except (TypeError, ValueError):
            raise EngineError(f"REPORT: vectors: {engine}: expected numbers, got {values!r}") from None
    return Embedding(vector, raw["encoder"], float(seconds), {**raw, "attempts": attempts})


def _check_unit(name: str, vector: Array) -> None:
    length = float(np.linalg.norm(vector.astype(np.float64)))
    if not (vector.ndim == 1 and abs(length - 1.0) <= _UNIT_TOLERANCE):
        raise EngineError(f"{name}: expected a vector of length 1, got {length:g}")


def _outputs(response: Any, model: ModelSpec, *, complete: bool = False) -> dict[str, Array]:
    """The response's arrays by name, each checked against the contract; `complete` if none may be missing."""
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
    if complete and set(arrays) != set(specs):
        raise EngineError(f"{model.name}: expected {' and '.join(specs)}, got {', '.join(arrays) or 'nothing'}")
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


def _audio(array: Array, start: int) -> AudioChunk:
    return AudioChunk(_finite("AUDIO", array, start), start)


def _stems(array: Array, start: int) -> StemsChunk:
    return StemsChunk(_finite("STEMS", array, start), start)


def _codes(array: Array, start: int) -> CodesChunk:
    if array.min() < 0:
        raise EngineError(f"CODES: expected codes of at least 0, got {array.min()} in the chunk at {start}")
    return CodesChunk(array, start)


def _finite(name: str, array: Array, start: int) -> Array:
    if not np.isfinite(array).all():
        raise EngineError(f"{name}: expected finite samples, got NaN or infinite ones in the chunk at {start}")
    return array


def _event(array: Array) -> Event:
    raw = _json("EVENT", array)
    try:
        return Event(str(raw["stage"]), int(raw["done"]), int(raw["total"]), float(raw["seconds"]))
    except (KeyError, TypeError, ValueError) as error:
        raise EngineError(f"EVENT: expected stage, done, total and seconds, got {raw!r}") from error


def _report(array: Array, request: JobRequest) -> Report:
    """The report of such a job: with a voice it is a conversion's, with stems it names them."""
    raw = _json("REPORT", array)
    if request.voice is None:
        report = Report.from_raw(raw)
    else:
        report = Report.from_raw_voice(raw, recorded=isinstance(request, CoverRequest))
    if request.settings.get("stems") and report.raw.get("stems") != list(MIX_STEM_NAMES):
        wanted = ", ".join(MIX_STEM_NAMES)
        raise EngineError(f"REPORT: stems: expected {wanted}, got {report.raw.get('stems')!r}")
    return report


def _json(name: str, array: Array) -> Any:
    try:
        return json.loads(array[0])
    except (ValueError, RecursionError) as error:
        raise EngineError(f"{name}: expected JSON, got {array[0][:80]!r}") from error


def job_stream(request: JobRequest) -> StreamSpec[Message]:
    """The stream of this song or cover: stems come if, and only if, it asks for them."""
    model = COVER if isinstance(request, CoverRequest) else SONG
    payloads: dict[str, Callable[[Array, int], Message]] = {"AUDIO": _audio}
    if model is SONG:
        payloads["CODES"] = _codes
    stems = ("STEMS",) if request.settings.get("stems") else ()
    payloads |= dict.fromkeys(stems, _stems)
    return StreamSpec[Message](model, SAMPLE_RATE_HZ, payloads, _event, partial(_report, request=request), stems)


def stems_stream(sources: Sequence[str] | str | None) -> StreamSpec[StemsMessage]:
    """The stream of a separation whose report must name `sources`, if given, in whatever order."""
    wanted = None if sources is None else as_sources(sources)

    def report(array: Array) -> StemsReport:
        made = StemsReport.from_raw(_json("REPORT", array))
        if wanted is not None and set(made.sources) != set(wanted):
            raise EngineError(f"REPORT: sources: expected {', '.join(wanted)}, got {', '.join(made.sources)}")
        return made

    return StreamSpec[StemsMessage](DEMUCS, STEM_RATE_HZ, {"STEMS": _stems}, _event, report)


def forget_stream() -> StreamSpec[ForgetReport]:
    """The stream of a request to forget a voice: a report alone."""
    return StreamSpec[ForgetReport](SVC, STEM_RATE_HZ, {}, _no_event, _forgotten)


def _no_event(_: Array) -> ForgetReport:
    raise EngineError("svc: got an event that was not asked for")


def _forgotten(array: Array) -> ForgetReport:
    raw = _json("REPORT", array)
    n_forgotten = raw.get("forgotten") if isinstance(raw, dict) else None
    if not isinstance(n_forgotten, int):
        raise EngineError(f"REPORT: expected how much was forgotten, got {raw!r}")
    return ForgetReport(n_forgotten)


# --------------------------------------------------------------------------------------------------------- errors

_PREFIX = re.compile(r"^\[request id: [^\]]*\] ")
_CORE_TEXTS: tuple[tuple[type[HeartvoiceError], re.Pattern[str]], ...] = tuple(
    (error, re.compile("|".join(patterns), re.IGNORECASE))
    for error, *patterns in (
        # What Triton's core says of itself, seen in 2.51.0; in streams the text is all there is.
        (ModelMissingError, "Request for unknown model: .* is not found"),
        (ModelUnavailableError, "Request for unknown model", "no available versions", "is not ready", "is not healthy"),
        (ModelUnavailableError, "Exceeds maximum queue size", "Server exiting", "Server is stopping", "is unloading"),
        (ModelUnavailableError, "Failed to increase the shared memory pool", f"^{ENDED_EARLY}$"),
        (InvalidRequestError, "unexpected inference input", "unexpected shape", "unexpected datatype", "data-type is"),
        (InvalidRequestError, "input byte size mismatch", "string data for inference input", "invalid datatype"),
        (InvalidRequestError, r"expected \d+ inputs? but got", "unexpected number of string elements"),
        (DeadlineError, "Request timeout expired"),
    )
)
_NO_REGISTRY = re.compile(r"unexpected inference input 'voice_id'|'voice_id': \w+ has no such input")
_WRONG_SERVER = re.compile(
    r"CERTIFICATE_VERIFY_FAILED|WRONG_VERSION_NUMBER|http1\.x server|Peer name .* is not in peer"
)


def error_from_text(text: str, default: type[HeartvoiceError] = EngineError) -> HeartvoiceError:
    """The error that a text stands for: ours by its wire code, Triton's own by its wording, else `default`."""
    text = _PREFIX.sub("", text).strip()
    if _NO_REGISTRY.search(text):
        return InvalidRequestError(
            "voice: expected a server that knows registered voices, a gateway with --registry, got another one; or name"
            " a registry of your own, in Python by Client(registry=...)"
        )
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
    return error_from_text(details or status, errors.class_of_status(status))
