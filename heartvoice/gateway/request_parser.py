"""Parses a request without copies of its tensors: `raw_input_contents` are views, the rest is parsed.

Protobuf's parser would copy every tensor twice while it holds the GIL, and all other callers would wait. This module
parses only the outermost layer of the encoding, in its canonical form. It refuses every other form of that layer, so
that the server cannot interpret a request differently.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2

from heartvoice.contracts.types import TensorSpec
from heartvoice.errors import InvalidRequestError

MAX_HEAD_BYTES = 1_000_000
"""Size in bytes of a request without its `raw_input_contents`."""
MAX_FIELDS = 256
"""Number of inputs, tensors, requested outputs and parameters together; `render` has 39 inputs."""
LENGTH_BYTES = 4
"""Before each element of a raw BYTES tensor."""
_LENGTH_DELIMITED = 2
_KNOWN = frozenset(service_pb2.ModelInferRequest.DESCRIPTOR.fields_by_number)
_RAW = service_pb2.ModelInferRequest.DESCRIPTOR.fields_by_name["raw_input_contents"].number


@dataclass(frozen=True)
class Parts:
    """A `ModelInferRequest`: the message without its raw tensors, and the raw tensors."""

    head: Any
    raw: list[memoryview]


def split(message: bytes) -> Parts:
    """Split a serialized `ModelInferRequest`.

    Raises:
        InvalidRequestError: it is no such message, or its outermost layer is not in canonical form.
    """
    view, at, end = memoryview(message), 0, len(message)
    heads: list[memoryview] = []
    raw: list[memoryview] = []
    head_bytes = 0
    while at < end:
        if len(heads) + len(raw) == MAX_FIELDS:
            raise InvalidRequestError(f"request: expected at most {MAX_FIELDS} fields, got more")
        begin, tag = at, message[at]
        # Every field of the message is a string or a message with a number under 16, so a tag is one byte.
        if tag & 7 != _LENGTH_DELIMITED or tag >> 3 not in _KNOWN:
            raise InvalidRequestError(f"request: expected a ModelInferRequest, got tag {tag:#04x} at byte {at}")
        size, at = _varint(message, at + 1)
        if size > end - at:
            raise InvalidRequestError(f"request: a field of {size} bytes at byte {begin}, but {end - at} are left")
        if tag >> 3 == _RAW:
            raw.append(view[at : at + size])
        else:
            heads.append(view[begin : at + size])
            head_bytes += at + size - begin
        at += size
    if head_bytes > MAX_HEAD_BYTES:
        raise InvalidRequestError(
            f"request: expected at most {MAX_HEAD_BYTES} bytes beside raw_input_contents, got {head_bytes}"
        )
    return Parts(parse(service_pb2.ModelInferRequest, b"".join(heads)), raw)


def join(parts: Parts) -> bytes:
    """Return the serialized `ModelInferRequest` that `split` would split into these parts."""
    pieces = [parts.head.SerializeToString()]
    for tensor in parts.raw:
        pieces += [bytes([_RAW << 3 | _LENGTH_DELIMITED]), _encoded_varint(len(tensor)), tensor]
    return b"".join(pieces)


def with_texts(parts: Parts, added: Mapping[TensorSpec, bytes]) -> bytes:
    """Return the serialized request with further BYTES [1] inputs, in the form that its other inputs have."""
    raw = list(parts.raw)
    typed = not raw and len(parts.head.inputs) > 0
    for spec, content in added.items():
        tensor = parts.head.inputs.add(name=spec.name, datatype=spec.dtype, shape=spec.shape)
        if typed:
            tensor.contents.bytes_contents.append(content)
        else:
            raw.append(memoryview(len(content).to_bytes(LENGTH_BYTES, "little") + content))
    return join(Parts(parts.head, raw))


def parse(kind: Any, message: bytes) -> Any:
    """Parse a whole message of the protocol.

    Raises:
        InvalidRequestError: it is no message of that type.
    """
    try:
        return kind.FromString(message)
    except DecodeError as error:
        raise InvalidRequestError(f"request: expected a {kind.DESCRIPTOR.name}, got something else") from error


def _encoded_varint(value: int) -> bytes:
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the length at `at` and its end; at most five bytes, in the shortest form."""
    value = 0
    for index in range(5):
        if at + index >= len(data):
            break
        byte = data[at + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            if index and byte == 0:
                break
            return value, at + index + 1
    raise InvalidRequestError(f"request: expected a length at byte {at}, got {data[at : at + 5].hex() or 'the end'}")
