"""Hostile requests: expected errors, and limits of the server's processes."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from heartvoice.contracts.models import MODELS
from heartvoice.server.server import EmbeddedServer
from heartvoice.serving.process_registry import is_alive
from tests.support.raw import Raw, outputs, request

DEADLINE_S = 30.0
"""Longest time until the response to a hostile request."""
LONGEST_ERROR = 1000
"""Limit of an error's text in characters: long values are not repeated."""
_MIB = 2**20
_LEAKS = re.compile(r"Traceback|\.py\b|site-packages|/tmp|/home|/root|/dev/shm|File \"|0x[0-9a-f]{8}")
"""Forbidden in error texts: paths and internals of the server."""

Inputs = Mapping[str, np.ndarray]
RIGHT = ""
"""Expectation of a request that only looks hostile: a normal response."""


@dataclass(frozen=True)
class Case:
    """One request; `error` is a pattern that its refusal must match, or `RIGHT`."""

    name: str
    message: Callable[[], Any]
    """Makes the `ModelInferRequest`, when the case is run."""
    error: str
    memory_mib: float = 150.0
    """Allowed growth of any process's memory, at its peak."""
    at_gateway: str | None = None
    """Pattern of the gateway's error, for requests that the server would answer."""
    or_right: bool = False
    """A normal response is allowed too, with the excess ignored."""
    or_nan: bool = False
    """A graph without checks: NaN in, NaN out."""
    echoed: bool = False
    """The server's core repeats the caller's own characters; commands escape them (`heartvoice.cli.terminal`)."""


def case(name: str, model: str, inputs: Inputs | Callable[[], Inputs], error: str, **more: Any) -> Case:
    """A case of well-formed tensors."""
    return Case(name, lambda: request(model, inputs() if callable(inputs) else inputs), error, **more)


def raw_case(
    name: str, model: str, tensors: list[tuple[str, str, list[int], bytes | None]], error: str, **more: Any
) -> Case:
    """Make a case of wire tensors: name, datatype, shape, and raw contents or None."""

    def message() -> Any:
        made = service_pb2.ModelInferRequest(model_name=model)
        for tensor, datatype, shape, raw in tensors:
            made.inputs.add(name=tensor, datatype=datatype, shape=shape)
            if raw is not None:
                made.raw_input_contents.append(raw)
        return made

    return Case(name, message, error, **more)


def parametrised(*tables: list[Case]) -> pytest.MarkDecorator:
    """Parametrise a test over the cases of the tables, with their names as ids."""
    cases = [pytest.param(one, id=one.name) for table in tables for one in table]
    names = [one.name for table in tables for one in table]
    assert len(set(names)) == len(names), sorted({name for name in names if names.count(name) > 1})
    return pytest.mark.parametrize("hostile", cases)


# ----------------------------------------------------------------------------------------------------------- tensors


def one(data: bytes) -> np.ndarray:
    """A BYTES [1] tensor."""
    return np.array([data], object)


def length_and(data: bytes) -> bytes:
    """Raw contents of a BYTES [1] tensor."""
    return struct.pack("<I", len(data)) + data


def f32(*values: float) -> np.ndarray:
    """FP32 [n]."""
    return np.array(values, np.float32)


def i64(*values: int) -> np.ndarray:
    """INT64 [n]."""
    return np.array(values, np.int64)


# ------------------------------------------------------------------------------------------------------------- running


def answer(raw: Raw, message: Any, timeout_s: float = DEADLINE_S) -> tuple[str, list[dict[str, Any]]]:
    """Return a call's error text, or "", and the outputs before it."""
    got: list[dict[str, Any]] = []
    spec = MODELS.get(message.model_name)
    try:
        if spec is not None and not spec.decoupled:
            return "", [outputs(raw.stub.ModelInfer(message, timeout=timeout_s))]
        for response in raw.stub.ModelStreamInfer(iter([message]), timeout=timeout_s):
            if response.error_message:
                return response.error_message, got
            got.append(outputs(response.infer_response))
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            pytest.fail(f"no answer within {timeout_s:g} s")
        return f"{error.code().name}: {error.details()}", got
    return "", got


def check_error(text: str, pattern: str, *, echoed: bool = False) -> None:
    """Check that an error names the fault briefly and reveals no internals."""
    assert text, "it was not refused"
    assert re.search(pattern, text), text[:LONGEST_ERROR]
    assert len(text) <= LONGEST_ERROR, f"{len(text)} characters: {text[:200]}"
    assert not _LEAKS.search(text), text
    assert echoed or not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", text), ascii(text)


def check_finite(got: list[dict[str, Any]]) -> None:
    """Check that there are outputs and that they are finite."""
    assert got
    for response in got:
        for name, value in response.items():
            if value.dtype == np.float32:
                assert np.isfinite(value).all(), f"{name} holds NaN or Inf"


def _memory(pid: int, name: str) -> float:
    """MiB of a line of /proc/PID/status."""
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.search(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)
    assert found, f"{name} of {pid}"
    return int(found[1]) / 1024


class Watch:
    """Watches the server's processes: none may die or exceed the case's memory limit."""

    def __init__(self, server: EmbeddedServer) -> None:
        self._server = server

    def _processes(self) -> dict[str, int]:
        return {"server": self._server.pid, **self._server.stub_pids()}

    @contextmanager
    def over(self, memory_mib: float) -> Iterator[None]:
        """Watch a block."""
        before = self._processes()
        resident = {}
        for name, pid in before.items():
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # resets the peak
            resident[name] = _memory(pid, "VmRSS")
        yield
        assert self._processes() == before, "a process was replaced"
        for name, pid in before.items():
            assert is_alive(pid), f"{name} died"
            grown = _memory(pid, "VmHWM") - resident[name]
            assert grown <= memory_mib, f"{name} took {grown:.0f} MiB more"


GOOD: dict[str, Callable[[], Inputs]] = {
    "song": lambda: {"codes": np.zeros((8, 1), np.int32), "codec_steps": i64(1)},
    "heartcodec": lambda: {"codes": np.zeros((8, 1), np.int32), "codec_steps": i64(1)},
    "heartmula": lambda: {"lyrics": one(b"la"), "duration_s": f32(1.0)},
    "speaker_encoder": lambda: {"audio": _tone(1.0)[None], "sample_rate": i64(16_000)},
    "render": lambda: {"codes": np.zeros((8, 1), np.int32), "codec_steps": i64(1)},
}
"""Quick requests that these must answer, whatever came before; the others have their turn at the end."""


def _tone(seconds: float, rate_hz: int = 16_000) -> np.ndarray:
    wave: np.ndarray = 0.3 * np.sin(np.arange(round(seconds * rate_hz)) * 0.1)
    return wave.astype(np.float32)


def check_good(raw: Raw, model: str) -> None:
    """Check that the next valid request is answered, by this model if it is fast."""
    chosen = model if model in GOOD else "heartcodec"
    error, got = answer(raw, request(chosen, GOOD[chosen]()))
    assert not error, f"{chosen} is hurt: {error}"
    check_finite(got)


__all__ = [
    "DEADLINE_S", "GOOD", "RIGHT", "Case", "Inputs", "Watch", "answer", "case", "check_error", "check_finite",
    "check_good", "f32", "i64", "length_and", "one", "parametrised", "raw_case",
]  # fmt: skip
