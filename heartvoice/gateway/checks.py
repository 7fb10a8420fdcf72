"""What a request must be before the server sees it: the contract's names, types, shapes and sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from heartvoice.client.wire import WANT_FINAL, ModelMissingError
from heartvoice.contracts.constants import MAX_CONSENT_CHARS, MAX_FILE_BYTES, MAX_TEXT_BYTES
from heartvoice.contracts.tensors import FILE_IN, JOB_INPUTS, LYRICS, TAGS, VOICE, VOICE_CONSENT
from heartvoice.contracts.types import NUMPY_DTYPE, Axis, ModelSpec, TensorSpec
from heartvoice.errors import InvalidRequestError
from heartvoice.gateway.request_parser import Parts

INTERNAL_INPUTS = frozenset(tensor.name for tensor in JOB_INPUTS)
"""Set by our own models alone: from outside, an `owner_pid` would pass by a drain and tell which processes live, and
`cancel` would end the job of whoever's `job_id` it names."""
MAX_WORD_BYTES = 256
"""Of a text that is a word or a list of a few: modes, formats, sources, keys."""
MAX_ID_CHARS = 128
_MAX_BYTES = {
    LYRICS.name: MAX_TEXT_BYTES,
    TAGS.name: MAX_TEXT_BYTES,
    FILE_IN.name: MAX_FILE_BYTES,
    VOICE.name: MAX_FILE_BYTES,
    VOICE_CONSENT.name: 4 * MAX_CONSENT_CHARS,
}
_CONTENTS = {
    "FP32": "fp32_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "BOOL": "bool_contents",
    "BYTES": "bytes_contents",
}
_LENGTH_BYTES = 4


class UnknownModelError(ModelMissingError):
    """Callers may not reach such a model, or there is none; said in Triton's words, which clients know."""

    def wire(self) -> str:
        """Without a code, as Triton says it in a stream."""
        return str(self)


def check_request(parts: Parts, models: Mapping[str, ModelSpec]) -> ModelSpec:
    """Check a whole request; returns the model that it is for.

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
    for index, tensor in enumerate(head.inputs):
        _check_input(tensor, parts.raw[index] if parts.raw else None, spec)
    for declared in spec.inputs:
        if not declared.optional and declared.name not in given:
            raise InvalidRequestError(f"{declared.name}: missing, expected {declared.describe()}")
    return spec


def find_model(name: str, models: Mapping[str, ModelSpec]) -> ModelSpec:
    """The model of that name, if callers may reach it.

    Raises:
        UnknownModelError: they may not, or there is none.
    """
    if name not in models:
        raise UnknownModelError(
            f"Request for unknown model: {name[:80]!r} is not found; model_name: expected one of {', '.join(models)}"
        )
    return models[name]


def _check_words(head: Any) -> None:
    if len(head.id) > MAX_ID_CHARS or not (head.id.isascii() and (head.id + "x").isprintable()):
        raise InvalidRequestError(f"id: expected at most {MAX_ID_CHARS} printable ASCII characters, got {len(head.id)}")
    version = head.model_version
    if version and not (version.isascii() and version.isdigit() and len(version) < 10):
        raise InvalidRequestError(f"model_version: expected a number or nothing, got {version[:80]!r}")


def _check_parameters(field: str, parameters: Mapping[str, Any], *, allowed: Sequence[str] = ()) -> None:
    """Shared memory, classification, sequences, priorities, timeouts: all of them are parameters."""
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


def _check_input(tensor: Any, raw: memoryview | None, spec: ModelSpec) -> None:
    name = tensor.name
    if name in INTERNAL_INPUTS:
        raise InvalidRequestError(f"{name}: expected nothing, since only the server's own models may set it")
    try:
        declared = spec.input(name)
    except KeyError:
        raise InvalidRequestError(f"{name[:80]!r}: {spec.name} has no such input") from None
    _check_parameters(f"{name}: parameters", tensor.parameters)
    shape = list(tensor.shape)
    if tensor.datatype != declared.dtype or not _fits(shape, declared, spec):
        raise InvalidRequestError(
            f"{name}: expected {_expected(declared, spec)}, got {tensor.datatype[:16]} {_shown(tensor.shape)}"
        )
    n_elements = math.prod(shape)  # Python's integers do not overflow
    if raw is None:
        _check_contents(tensor, declared, n_elements)
    elif tensor.HasField("contents"):
        raise InvalidRequestError(f"{name}: expected contents or raw_input_contents, got both")
    elif declared.dtype == "BYTES":
        _check_elements(name, raw, n_elements)
    else:
        _check_size(name, n_elements * np.dtype(NUMPY_DTYPE[declared.dtype]).itemsize, len(raw), shape)


def _shown(shape: Sequence[int]) -> str:
    """At most eight axes: a caller may send thousands."""
    return str(list(shape)) if len(shape) <= 8 else f"{list(shape[:8])} and {len(shape) - 8} more axes"


def _fits(shape: list[int], declared: TensorSpec, spec: ModelSpec) -> bool:
    axes = _axes(declared, spec)
    return len(shape) == len(axes) and all(
        axis.min <= size <= axis.max if isinstance(axis, Axis) else size == axis
        for size, axis in zip(shape, axes, strict=True)
    )


def _axes(declared: TensorSpec, spec: ModelSpec) -> tuple[int | Axis, ...]:
    batch = (Axis("batch", 1, 1, spec.max_batch_size),) if spec.max_batch_size else ()
    return batch + declared.shape


def _expected(declared: TensorSpec, spec: ModelSpec) -> str:
    """`INT32 [8, frame of 1 to 3001]`."""
    sizes = (
        f"{axis.name} of {axis.min} to {axis.max}" if isinstance(axis, Axis) else str(axis)
        for axis in _axes(declared, spec)
    )
    return f"{declared.dtype} [{', '.join(sizes)}]"


def _check_size(name: str, expected: int, actual: int, shape: list[int]) -> None:
    if expected != actual:
        raise InvalidRequestError(f"{name}: expected {expected} bytes for {shape}, got {actual}")


def _check_text(name: str, size: int) -> None:
    limit = _MAX_BYTES.get(name, MAX_WORD_BYTES)
    if size > limit:
        raise InvalidRequestError(f"{name}: expected at most {limit} bytes, got {size}")


def _check_elements(name: str, raw: memoryview, n_elements: int) -> None:
    """BYTES: each element is its length in four bytes, then so many bytes, and nothing follows the last."""
    at = 0
    for _ in range(n_elements):  # a contract's texts have one element
        if at + _LENGTH_BYTES > len(raw):
            break
        size = int.from_bytes(raw[at : at + _LENGTH_BYTES], "little")
        at += _LENGTH_BYTES + size
        _check_text(name, size)
    else:
        if at == len(raw):
            return
    raise InvalidRequestError(
        f"{name}: expected {n_elements} elements, each its length in {_LENGTH_BYTES} bytes and its bytes, "
        f"got {len(raw)} bytes that hold something else"
    )


def _check_contents(tensor: Any, declared: TensorSpec, n_elements: int) -> None:
    """Typed contents: the one list of the tensor's type, complete."""
    field = _CONTENTS[declared.dtype]
    others = [found.name for found, _ in tensor.contents.ListFields() if found.name != field]
    values = getattr(tensor.contents, field)
    if others or len(values) != n_elements:
        got = f"{len(values)}" + (f" and {', '.join(others)}" if others else "")
        raise InvalidRequestError(f"{declared.name}: expected {n_elements} {field}, got {got}")
    if declared.dtype == "BYTES":
        for value in values:
            _check_text(declared.name, len(value))
