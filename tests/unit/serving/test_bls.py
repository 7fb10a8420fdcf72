"""Calls between models, over a fake of Triton's own module: which of them are cancelled when their job ends."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from heartvoice.errors import ModelUnavailableError, RequestCancelledError
from heartvoice.serving import process_registry
from heartvoice.serving.workarounds.acknowledgements import MORE_INPUTS, AckReceiver
from tests.support.cancelling import cancelled_when

Sent = list[tuple[str, list[str]]]


class Tensor:
    def __init__(self, name: str, value: Any) -> None:
        self._name, self._value = name, value

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> Any:
        return self._value


class Request:
    """Answers a call with one response, a stream with two."""

    sent: Sent

    def __init__(self, model_name: str, inputs: list[Tensor], **_: Any) -> None:
        self.sent.append((model_name, [tensor.name() for tensor in inputs]))
        self.tensors = {tensor.name(): tensor.as_numpy() for tensor in inputs}

    def exec(self, decoupled: bool = False) -> Any:
        answer = SimpleNamespace(has_error=lambda: False, output_tensors=lambda: [Tensor("X", np.zeros(1))])
        return iter([answer, answer]) if decoupled else answer


@pytest.fixture
def bls(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    backend: Any = ModuleType("triton_python_backend_utils")
    Request.sent = []
    backend.InferenceRequest, backend.Tensor, backend.TritonModelException = Request, Tensor, RuntimeError
    backend.PreferredMemory, backend.TRITONSERVER_MEMORY_CPU = lambda *_: None, 0
    monkeypatch.setitem(sys.modules, backend.__name__, backend)
    monkeypatch.delitem(sys.modules, "heartvoice.serving.bls", raising=False)
    from heartvoice.serving import bls as module

    monkeypatch.setattr(module, "pb_utils", backend)
    yield module
    sys.modules.pop("heartvoice.serving.bls", None)


def cancelled() -> list[str]:
    return [model for model, names in Request.sent if "cancel" in names]


def test_calls_that_were_answered_are_not_cancelled(bls: ModuleType) -> None:
    caller = bls.BlsClient()
    for _ in range(3):
        caller.run("heartcodec", {"seed": np.array([1])})
    list(caller.stream("heartmula", {"seed": np.array([1])}))
    caller.close()
    assert [model for model, _ in Request.sent] == ["heartcodec"] * 3 + ["heartmula"]
    assert cancelled() == []


def test_streams_that_were_left_are_cancelled(bls: ModuleType) -> None:
    caller = bls.BlsClient()
    streams = [caller.stream("heartmula", {"seed": np.array([1])}) for _ in range(2)]
    for stream in streams:
        next(stream)
    caller.close()
    assert cancelled() == ["heartmula"] * 2


def test_large_optional_inputs_go_over_the_streams_socket(bls: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    vocals, consent = np.arange(300_000, dtype=np.float64), np.array([b"me"], np.object_)
    got: list[dict[str, np.ndarray]] = []

    def answer(request: Request, decoupled: bool = False) -> Any:
        job_id = request.tensors["job_id"][0]
        callee = AckReceiver(job_id)
        assert job_id.endswith(MORE_INPUTS)
        got.append(callee.inputs())

        def responses() -> Iterator[Any]:
            for n in (1, 2):
                threading.Thread(target=callee.sent, args=({"VOCALS": np.full(200_000, n, np.float32)},)).start()
                yield SimpleNamespace(has_error=lambda: False, output_tensors=lambda: [Tensor("START", np.zeros(1))])
                while not callee.complete():
                    callee.wait(1)
            yield SimpleNamespace(has_error=lambda: False, output_tensors=list)

        return responses()

    monkeypatch.setattr(Request, "exec", answer)
    answers = list(bls.BlsClient().stream("svc", {"vocals": vocals, "voice_consent": consent}))
    assert [sorted(each) for each in answers] == [["START", "VOCALS"]] * 2
    assert [float(each["VOCALS"][-1]) for each in answers] == [1.0, 2.0]
    assert np.array_equal(got[0]["vocals"], vocals.astype(np.float32)), "with the contract's type"
    assert Request.sent == [("svc", ["voice_consent", "job_id", "owner_pid"])]


def test_a_callee_that_dies_while_it_sends_an_array_fails_its_caller_alone(
    bls: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = []

    def answer(request: Request, decoupled: bool = False) -> Any:
        callee = AckReceiver(request.tensors["job_id"][0])

        def responses() -> Iterator[Any]:
            callee.close()
            for _ in range(3):
                yield SimpleNamespace(has_error=lambda: False, output_tensors=lambda: [Tensor("START", np.zeros(1))])
            ended.append(True)

        return responses()

    monkeypatch.setattr(Request, "exec", answer)
    with pytest.raises(ModelUnavailableError, match="svc: its process died in the middle of the job"):
        list(bls.BlsClient().stream("svc", {"seed": np.array([1])}))
    assert ended == [True], "an iterator that was left before its end would block whoever frees it"


def test_a_cancelled_job_calls_nobody(bls: ModuleType) -> None:
    caller = bls.BlsClient(cancelled_when(lambda: True))
    with pytest.raises(RequestCancelledError):
        caller.run("heartcodec", {"seed": np.array([1])})
    with pytest.raises(RequestCancelledError):
        next(caller.stream("heartmula", {"seed": np.array([1])}))
    assert Request.sent == []


def test_a_call_ends_when_the_callee_dies(bls: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """See `heartvoice.serving.workarounds.killed_callee`."""
    never = threading.Event()
    callee = subprocess.Popen(["sleep", "60"])
    (tmp_path / "pids").mkdir()
    (tmp_path / "pids" / "heartcodec").write_text(str(callee.pid))
    monkeypatch.setenv(process_registry.VARIABLE, str(tmp_path))
    monkeypatch.setattr(Request, "exec", lambda *_, **__: never.wait(30))
    threading.Timer(0.2, callee.kill).start()
    caller = bls.BlsClient()
    with pytest.raises(ModelUnavailableError, match="heartcodec: its process died in the middle of the job"):
        caller.run("heartcodec", {"seed": np.array([1])})
    with pytest.raises(ModelUnavailableError, match="heartcodec: its process has died and is being restarted"):
        caller.run("heartcodec", {"seed": np.array([1])})
    caller.close()
    assert cancelled() == [], "a dead callee has no job any more"
    callee.wait()
    never.set()
