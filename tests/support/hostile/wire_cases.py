"""Malformed requests: wrong shapes, lengths, names and parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.support.hostile.case import RIGHT, Case, case, f32, i64, length_and, one, raw_case
from tests.support.raw import request

LYRICS = ("lyrics", "BYTES", [1], length_and(b"la"))
SHORT = ("duration_s", "FP32", [1], f32(1).tobytes())
CODES = {"codes": np.zeros((8, 1), np.int32), "codec_steps": i64(1)}
EIGHT = np.zeros((8, 1), np.int32).tobytes()
AT_THE_DOOR = "shape|dimension|byte size|bytes|element|overflow|size"
"""Words in refusals of wrong shapes or lengths, by the server's core, our model or the gateway."""


def changed(name: str, change: Callable[[Any], object], error: str, **more: Any) -> Case:
    """Make a valid request and change its message."""

    def message() -> Any:
        made = request("heartcodec", CODES)
        change(made)
        return made

    return Case(name, message, error, **more)


def _shared(made: Any, name: str, size: int, offset: int) -> None:
    """Declare the first input to be in shared memory."""
    del made.raw_input_contents[:]
    made.inputs[0].parameters["shared_memory_region"].string_param = name
    made.inputs[0].parameters["shared_memory_byte_size"].int64_param = size
    made.inputs[0].parameters["shared_memory_offset"].int64_param = offset


def _shared_output(made: Any) -> None:
    output = made.outputs.add(name="AUDIO")
    output.parameters["shared_memory_region"].string_param = "/heartvoice"
    output.parameters["shared_memory_byte_size"].int64_param = 2**40


def _typed(made: Any, n: int = 8) -> None:
    """Replace raw contents by typed ones."""
    del made.raw_input_contents[:]
    made.inputs[0].contents.int_contents.extend([0] * n)
    made.inputs[1].contents.int64_contents.append(1)


def _mistyped(made: Any) -> None:
    _typed(made)
    made.inputs[0].contents.ClearField("int_contents")
    made.inputs[0].contents.fp32_contents.extend([0.0] * 8)


def _many_parameters(made: Any) -> None:
    for n in range(1000):
        made.parameters[f"p{n}"].string_param = "x" * 100


SHAPES = [
    raw_case("a dim of -1", "heartcodec", [("codes", "INT32", [8, -1], EIGHT)], AT_THE_DOOR),
    raw_case("no rank", "heartcodec", [("codes", "INT32", [], b"\0" * 4)], AT_THE_DOOR),
    raw_case("rank 5", "heartcodec", [("codes", "INT32", [8, 1, 1, 1, 1], EIGHT)], AT_THE_DOOR),
    raw_case("rank 10000", "heartcodec", [("codes", "INT32", [1] * 10_000, b"\0" * 4)], AT_THE_DOOR),
    raw_case("no codebook", "heartcodec", [("codes", "INT32", [0, 1], b"")], AT_THE_DOOR),
    raw_case("no frame", "heartcodec", [("codes", "INT32", [8, 0], b"")], "codes|" + AT_THE_DOOR),
    raw_case("a million frames of 32 bytes", "heartcodec", [("codes", "INT32", [8, 10**6], EIGHT)], AT_THE_DOOR),
    raw_case("a frame more than the contract", "heartcodec", [("codes", "INT32", [8, 373], b"\0" * 8 * 373 * 4)],
             "codes: expected .*1 to 372.*373"),
    raw_case("a million samples of 4 bytes", "svc", [("vocals", "FP32", [10**6], b"\0" * 4)], AT_THE_DOOR),
    raw_case("a million style values of no bytes", "song", [LYRICS, ("style", "FP32", [10**6], b"")], AT_THE_DOOR),
]  # fmt: skip

LENGTHS = [
    raw_case("a byte too few", "heartcodec", [("codes", "INT32", [8, 1], EIGHT[:-1])], AT_THE_DOOR),
    raw_case("a byte too many", "heartcodec", [("codes", "INT32", [8, 1], EIGHT + b"\0")], AT_THE_DOOR),
    raw_case("no bytes", "heartcodec", [("codes", "INT32", [8, 1], b"")], AT_THE_DOOR),
    raw_case("twice the bytes", "heartcodec", [("codes", "INT32", [8, 1], EIGHT * 2)], AT_THE_DOOR),
    raw_case("a text without its length", "song", [("lyrics", "BYTES", [1], b"la"), SHORT], AT_THE_DOOR),
    raw_case("a text longer than it says", "song", [("lyrics", "BYTES", [1], b"\1\0\0\0la"), SHORT], AT_THE_DOOR),
    raw_case("a text shorter than it says", "song", [("lyrics", "BYTES", [1], b"\x09\0\0\0la"), SHORT], AT_THE_DOOR),
    raw_case("a text of 4 GB in 6 bytes", "song", [("lyrics", "BYTES", [1], b"\xff\xff\xff\xffla"), SHORT],
             AT_THE_DOOR),
    raw_case("two texts in place of one", "song", [("lyrics", "BYTES", [1], LYRICS[3] * 2), SHORT], AT_THE_DOOR),
    raw_case("a hundred thousand texts", "song", [("lyrics", "BYTES", [100_000], LYRICS[3] * 100_000)], AT_THE_DOOR),
    raw_case("no text", "song", [("lyrics", "BYTES", [0], b""), SHORT], AT_THE_DOOR),
    raw_case("a BOOL of 255", "song", [LYRICS, SHORT, ("return_codes", "BOOL", [1], b"\xff")], RIGHT),
    raw_case("one raw content for two inputs", "song", [LYRICS, (*SHORT[:3], None)], "raw|content|input|byte size"),
    changed("raw contents of no input", lambda m: m.raw_input_contents.append(b"\0" * 99), "raw|content|input",
            or_right=True),
    changed(
        "both raw and typed contents", lambda m: m.inputs[0].contents.int_contents.extend([0] * 8), "content|raw"
    ),
    changed("typed contents alone", _typed, RIGHT),
    changed("typed contents of the wrong type", _mistyped, "content|byte size|element|input"),
    changed("too many typed contents", lambda m: _typed(m, 1000), AT_THE_DOOR),
]  # fmt: skip

NAMES = [
    raw_case("an input twice", "heartcodec", [("codes", "INT32", [8, 1], EIGHT)] * 2, "codes|input"),
    case("an unknown input", "heartcodec", CODES | {"no_such_input": f32(1)}, "no_such_input"),
    case("an input of another model", "song", CODES | {"vocals": f32(*[0.0] * 512)}, "vocals"),
    case("a job_id for a song", "song", CODES | {"job_id": one(b"mine")}, "job_id"),
    raw_case("no inputs", "heartcodec", [], "codes|input"),
    raw_case("an input without a name", "heartcodec", [("", "INT32", [8, 1], EIGHT)], "input|name"),
    raw_case("a name of a megabyte", "heartcodec", [("x" * 2**20, "INT32", [8, 1], EIGHT)],
             "input|name|metadata size"),
    raw_case("a name with an escape sequence", "heartcodec", [("\x1b[31m", "INT32", [8, 1], EIGHT)], "input",
             echoed=True),
    raw_case("an empty datatype", "heartcodec", [("codes", "", [8, 1], EIGHT)], "type|codes"),
    raw_case("a datatype that is none", "heartcodec", [("codes", "FP99", [8, 1], EIGHT)], "type|codes"),
    raw_case("FP16 codes", "heartcodec", [("codes", "FP16", [8, 1], EIGHT[:16])], "type|codes"),
    raw_case("BYTES codes", "heartcodec", [("codes", "BYTES", [8, 1], b"\0\0\0\0" * 8)], "type|codes"),
    raw_case("UINT32 codes", "heartcodec", [("codes", "UINT32", [8, 1], EIGHT)], "type|codes"),
    raw_case("FP64 seconds", "song", [LYRICS, ("duration_s", "FP64", [1], b"\0" * 8)], "type|duration_s"),
    raw_case("a model that is none", "no_such_model", [LYRICS], "no_such_model|model"),
    raw_case("a model by a path", "../../etc/passwd", [LYRICS], "model"),
    raw_case("no model", "", [LYRICS], "model"),
    raw_case("an unloaded model", "heartcodec_flow", [("x", "FP32", [1], b"\0" * 4)], "model|heartcodec_flow"),
    changed("version 999", lambda m: setattr(m, "model_version", "999"), "version"),
    changed("version -1", lambda m: setattr(m, "model_version", "-1"), "version"),
    changed("a version that is no number", lambda m: setattr(m, "model_version", "../1"), "version"),
    changed("a request id of a megabyte", lambda m: setattr(m, "id", "i" * 2**20), RIGHT, at_gateway="expected"),
    changed("a request id of escapes", lambda m: setattr(m, "id", "\x1b]0;owned\x07]"), RIGHT, at_gateway="expected"),
    changed("an output that is none", lambda m: m.outputs.add(name="SECRETS"), "SECRETS|output"),
    changed("an output twice", lambda m: (m.outputs.add(name="AUDIO"), m.outputs.add(name="AUDIO")), RIGHT),
]  # fmt: skip

PARAMETERS = [
    changed("shared memory that is not there", lambda m: _shared(m, "nobody's", 32, 0), "shared memory|shared_memory"),
    changed("shared memory by a path", lambda m: _shared(m, "../../etc/x", 32, 0), "shared memory|shared_memory"),
    changed("shared memory of 2^63-1 bytes", lambda m: _shared(m, "x", 2**63 - 1, 0), "shared memory|shared_memory"),
    changed("shared memory at -1", lambda m: _shared(m, "x", 32, -1), "shared memory|shared_memory"),
    changed("an output into shared memory", _shared_output, "shared memory|shared_memory"),
    changed(
        "a sequence id", lambda m: setattr(m.parameters["sequence_id"], "int64_param", 7), "sequence|param",
        or_right=True,
    ),
    changed(
        "a deadline of -1", lambda m: setattr(m.parameters["timeout"], "int64_param", -1), RIGHT, at_gateway="expected"
    ),
    changed(
        "the highest priority", lambda m: setattr(m.parameters["priority"], "uint64_param", 2**64 - 1), RIGHT,
        at_gateway="expected",
    ),
    changed("a priority by text", lambda m: setattr(m.parameters["priority"], "string_param", "now"), "priority|param"),
    changed("a thousand parameters", _many_parameters, RIGHT, at_gateway="expected"),
    changed(
        "a reserved parameter", lambda m: setattr(m.parameters["triton_final_response"], "bool_param", True),
        "reserved|param|triton",
    ),
    changed(
        "classification of an output",
        lambda m: setattr(m.outputs.add(name="AUDIO").parameters["classification"], "int64_param", 2**40),
        RIGHT, at_gateway="expected",
    ),
]  # fmt: skip
