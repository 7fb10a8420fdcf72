"""Checks a request's wire form before the validation that client and server share.

The gateway checks that a message's contents match its tensors, that callers may request them, and that
`contracts.validation` accepts them. It reads neither encoded files nor the values of samples: that would delay other
callers, and the server reads them in any case.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from typing import Any

import numpy as np

from heartvoice.arrays import Array
from heartvoice.contracts.field_checks import check_complete, check_shape, find_input, read_consent
from heartvoice.contracts.kserve import WANT_FINAL
from heartvoice.contracts.settings import FORGET
from heartvoice.contracts.tensors import CALLER, JOB_INPUTS, VOICE_ID
from heartvoice.contracts.types import NUMPY_DTYPE, ModelSpec, TensorSpec
from heartvoice.contracts.validation import check_rules
from heartvoice.contracts.voice_ids import named_record
from heartvoice.errors import InvalidRequestError, UnknownModelError
from heartvoice.gateway.request_parser import LENGTH_BYTES, Parts

INTERNAL_INPUTS = frozenset(tensor.name for tensor in JOB_INPUTS) | {FORGET.name, CALLER.name}
"""Inputs that callers may not set: an `owner_pid` from outside would outlast a drain and reveal live processes,
`cancel` would end the job of any caller by its `job_id`, `forget` is for the operator who purges a voice, and `caller`
is the gateway's own."""
RAW_VOICES = ("voice", "voice_audio", "voice_key")
"""Inputs that let a voice sing which may not be registered; a key names one that an earlier request sent."""
MAX_ID_CHARS = 128
_CONTENTS = {
    "FP32": "fp32_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "BOOL": "bool_contents",
    "BYTES": "bytes_contents",
}


def check_request(parts: Parts, models: Mapping[str, ModelSpec], *, registered_only: bool = False) -> ModelSpec:
    """Check a whole request and return its model.

    Args:
        parts: the request.
        models: that callers may reach; at a gateway with a registry, those of `with_voice_ids`.
        registered_only: refuse every voice but registered ones.

    Raises:
        UnknownModelError: there is no such model.
        InvalidRequestError: names field, limit and value.
    """
    head = parts.head
    spec = find_model(head.model_name, models)
    _check_words(head)
    _check_parameters("parameters", head.parameters, allowed=(WANT_FINAL,))
    _check_outputs(head.outputs, spec)
    given = {tensor.name: tensor for tensor in head.inputs}
    if len(given) != len(head.inputs):
        raise InvalidRequestError("inputs: expected each name once, got one of them twice")
    if parts.raw and len(parts.raw) != len(given):
        raise InvalidRequestError(
            f"raw_input_contents: expected one for each of {len(given)} inputs, got {len(parts.raw)}"
        )
    if registered_only:
        _check_registered(given)
    arrays = {
        tensor.name: _read_input(tensor, parts.raw[index] if parts.raw else None, spec)
        for index, tensor in enumerate(head.inputs)
    }
    check_complete(spec, given)
    check_rules(spec, arrays)
    if VOICE_ID in spec.inputs and named_record(read_consent(arrays)) is not None:
        raise InvalidRequestError(
            "voice_consent: expected who consents and how, got the name of a consent record: only a registered voice"
            " has one; send its voice_id in place of the reference"
        )
    return spec


def find_model(name: str, models: Mapping[str, ModelSpec]) -> ModelSpec:
    """Return the model of that name if callers may reach it.

    Raises:
        UnknownModelError: there is no such model, or callers may not reach it.
    """
    if name not in models:
        raise UnknownModelError(
            f"Request for unknown model: {name[:80]!r} is not found; model_name: expected one of {', '.join(models)}"
        )
    return models[name]


def _check_registered(names: Container[str]) -> None:
    for name in RAW_VOICES:
        if name in names:
            raise InvalidRequestError(
                f"{name}: expected voice_id in its place, the id of a registered voice of yours: this gateway takes no"
                " others; its operator enrols voices whose owners consent"
            )


def _check_words(head: Any) -> None:
    if len(head.id) > MAX_ID_CHARS or not (head.id.isascii() and (head.id + "x").isprintable()):
        raise InvalidRequestError(f"id: expected at most {MAX_ID_CHARS} printable ASCII characters, got {len(head.id)}")
    version = head.model_version
    if version and not (version.isascii() and version.isdigit() and len(version) < 10):
        raise InvalidRequestError(f"model_version: expected a number or nothing, got {version[:80]!r}")


def _check_parameters(field: str, parameters: Mapping[str, Any], *, allowed: Sequence[str] = ()) -> None:
    """Refuse parameters: shared memory, classification, sequences, priorities and timeouts."""
    for name in parameters:
        if name not in allowed:
            expected = ", ".join(allowed) or "none"
            raise InvalidRequestError(f"{field}: expected {expected}, got {name[:80]!r}")


def _check_outputs(outputs: Sequence[Any], spec: ModelSpec) -> None:
    known = {tensor.name for tensor in spec.outputs}
    for wanted in outputs:
        if wanted.name not in known:
            raise InvalidRequestError(f"outputs: {spec.name} has {', '.join(sorted(known))}, got {wanted.name[:80]!r}")
        _check_parameters(f"{wanted.name}: parameters", wanted.parameters)


def _read_input(tensor: Any, raw: memoryview | None, spec: ModelSpec) -> Array:
    """Check one tensor and view its contents as an array; only typed contents are copied."""
    name = tensor.name
    if name in INTERNAL_INPUTS:
        raise InvalidRequestError(f"{name}: expected nothing, since callers may not set it")
    declared = find_input(spec, name)
    _check_parameters(f"{name}: parameters", tensor.parameters)
    shape = tuple(tensor.shape)
    check_shape(declared, tensor.datatype, shape, max_batch_size=spec.max_batch_size)
    n_elements = math.prod(shape)  # Python's integers do not overflow
    if raw is None:
        return _read_contents(tensor, declared, shape)
    if tensor.HasField("contents"):
        raise InvalidRequestError(f"{name}: expected contents or raw_input_contents, got both")
    if declared.dtype == "BYTES":
        return _objects(_elements(name, raw, n_elements), shape)
    dtype = np.dtype(NUMPY_DTYPE[declared.dtype])
    if n_elements * dtype.itemsize != len(raw):
        raise InvalidRequestError(
            f"{name}: expected {n_elements * dtype.itemsize} bytes for {list(shape)}, got {len(raw)}"
        )
    return np.frombuffer(raw, dtype.newbyteorder("<")).reshape(shape)


def _elements(name: str, raw: memoryview, n_elements: int) -> list[memoryview]:
    """Split BYTES contents: each element is its length in four bytes and its bytes, without a remainder."""
    at = 0
    elements: list[memoryview] = []
    for _ in range(n_elements):  # texts of the contracts have one element
        if at + LENGTH_BYTES > len(raw):
            break
        size = int.from_bytes(raw[at : at + LENGTH_BYTES], "little")
        elements.append(raw[at + LENGTH_BYTES : at + LENGTH_BYTES + size])
        at += LENGTH_BYTES + size
    if len(elements) < n_elements or at != len(raw):
        raise InvalidRequestError(
            f"{name}: expected {n_elements} elements, each its length in {LENGTH_BYTES} bytes and its bytes, "
            f"got {len(raw)} bytes that hold something else"
        )
    return elements


def _read_contents(tensor: Any, declared: TensorSpec, shape: tuple[int, ...]) -> Array:
    """Read typed contents: one complete list of the tensor's type."""
    field, n_elements = _CONTENTS[declared.dtype], math.prod(shape)
    others = [found.name for found, _ in tensor.contents.ListFields() if found.name != field]
    values = getattr(tensor.contents, field)
    if others or len(values) != n_elements:
        got = f"{len(values)}" + (f" and {', '.join(others)}" if others else "")
        raise InvalidRequestError(f"{declared.name}: expected {n_elements} {field}, got {got}")
    if declared.dtype == "BYTES":
        return _objects(list(values), shape)
    return np.array(values, NUMPY_DTYPE[declared.dtype]).reshape(shape)


def _objects(elements: Sequence[object], shape: tuple[int, ...]) -> Array:
    """Return an object array of the elements; `np.array` would split a memoryview."""
    array = np.empty(len(elements), object)
    for index, element in enumerate(elements):
        array[index] = element
    return array.reshape(shape)
