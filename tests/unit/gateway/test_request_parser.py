"""Requests taken apart: equal to protobuf's own reading, and nothing that another parser might read otherwise."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from heartvoice.errors import InvalidRequestError
from heartvoice.gateway import request_parser

TEXT = st.text(max_size=20)


def a_request(**fields: object) -> bytes:
    serialized: bytes = service_pb2.ModelInferRequest(**fields).SerializeToString()
    return serialized


@given(
    TEXT, TEXT, st.lists(st.tuples(TEXT, st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4)), max_size=5),
    st.lists(st.binary(max_size=300), max_size=5),
)  # fmt: skip
def test_parts_are_what_protobuf_reads(
    name: str, request_id: str, inputs: list[tuple[str, list[int]]], raw: list[bytes]
) -> None:
    message = service_pb2.ModelInferRequest(model_name=name, id=request_id, raw_input_contents=raw)
    for tensor, shape in inputs:
        message.inputs.add(name=tensor, datatype="FP32", shape=shape)
    parts = request_parser.split(message.SerializeToString())
    assert [bytes(view) for view in parts.raw] == raw
    message.ClearField("raw_input_contents")
    assert parts.head == message


@given(st.binary(max_size=200))
def test_anything_else_is_refused_or_means_the_same(data: bytes) -> None:
    try:
        parts = request_parser.split(data)
    except InvalidRequestError:
        return
    whole = service_pb2.ModelInferRequest.FromString(data)
    assert list(whole.raw_input_contents) == [bytes(view) for view in parts.raw]
    whole.ClearField("raw_input_contents")
    assert parts.head == whole


@pytest.mark.parametrize(
    "data",
    [
        b"\xba\x00\x01x",  # raw_input_contents with a tag of two bytes
        b"\x3a\x81\x00x",  # a length of one in two bytes
        b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # a length of 64 bits
        b"\x3a\x05x",  # more than there is
        b"\x3a",  # no length
        b"\x38\x01",  # the number of raw_input_contents with another type
        b"\x3b\x3c",  # a group
        b"\x42\x01x",  # a field that the protocol does not have
        b"\x0a\x02\xff\xfe",  # a name that is not UTF-8
        b"\x2a\x01\xff",  # an input that is no message
    ],
)
def test_unusual_encodings_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequestError, match=r"^request: "):
        request_parser.split(data)


def test_a_flood_of_tiny_fields_ends_early() -> None:
    flood = b"\x3a\x00" * 20_000_000
    began = time.process_time()
    with pytest.raises(InvalidRequestError, match="at most 256 fields"):
        request_parser.split(flood)
    assert time.process_time() - began < 5, "it was read to the end"


def test_a_large_head_is_refused_before_it_is_parsed() -> None:
    data = a_request(model_name="x" * (request_parser.MAX_HEAD_BYTES + 1))
    with pytest.raises(InvalidRequestError, match=r"at most 1000000 bytes beside raw_input_contents, got 10000\d\d"):
        request_parser.split(data)


def test_tensors_are_not_copied() -> None:
    data = a_request(raw_input_contents=[b"x" * 1000])
    assert request_parser.split(data).raw[0].obj is data
