"""Calls from one model to another inside the server, which end when the callee dies or the job is cancelled."""

from __future__ import annotations

import os
import queue
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from heartvoice.arrays import Array
from heartvoice.contracts.models import MODELS
from heartvoice.contracts.types import NUMPY_DTYPE
from heartvoice.errors import EngineError, HeartvoiceError, ModelUnavailableError, RequestCancelledError, from_wire
from heartvoice.resource_errors import as_resource_error
from heartvoice.runtime.networks import Check, LocalNetworks, never_cancelled
from heartvoice.serving import process_registry
from heartvoice.serving.workarounds.acknowledgements import AckSender
from heartvoice.serving.workarounds.deferred_release import FINISHED_STREAMS

TICK_S = 0.02
"""How often a waiting caller looks at its job and at the callee."""


def _tensor(model: str, name: str, value: Array) -> Any:
    dtype = NUMPY_DTYPE[MODELS[model].input(name).dtype]
    return pb_utils.Tensor(name, np.ascontiguousarray(value, dtype=dtype))


def _cpu() -> Any:
    """CPU outputs: tensors that stay on a GPU break `as_numpy`."""
    return pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0)


def _one(request: Any) -> Iterator[Any]:
    """The response of a unary model."""
    yield request.exec()


def _many(request: Any, job_id: str) -> Iterator[Any]:
    """The responses of a decoupled model, which sends each when the last has been taken."""
    with AckSender(job_id) as receiver:
        responses = request.exec(decoupled=True)
        try:
            for response in responses:
                receiver.take()
                yield response
        finally:
            FINISHED_STREAMS.hold(responses)


def _error(model: str, error: Any) -> HeartvoiceError:
    text = error.message()
    used_up = as_resource_error(model, text)
    if used_up is not None:
        return used_up
    if "is not healthy" in text:
        return ModelUnavailableError(f"{model}: its process has died")
    if "is not ready" in text or "unknown model" in text:
        return ModelUnavailableError(f"{model}: not loaded")
    code = error.code()
    for triton, cls in (
        (pb_utils.TritonError.UNAVAILABLE, ModelUnavailableError),
        (pb_utils.TritonError.NOT_FOUND, ModelUnavailableError),
        (pb_utils.TritonError.CANCELLED, RequestCancelledError),
    ):
        if code == triton:
            return from_wire(text, cls)
    return from_wire(text, EngineError)


class BlsClient:
    """Calls other models on behalf of one job. A call ends at once when `check` raises or the callee dies."""

    def __init__(self, check: Check = never_cancelled) -> None:
        """`check` is called before each call and while it waits."""
        self._check = check
        self._open: dict[str, str] = {}
        """Calls under way: the callee's name of the job, and the model."""

    def run(self, name: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Call a unary model; the `Networks` protocol."""
        self._check()
        wanted = list(outputs or [tensor.name for tensor in MODELS[name].outputs])
        job_id = uuid.uuid4().hex
        request = self._request(name, inputs, wanted, job_id)
        for response in self._call_in_thread(name, job_id, lambda: _one(request)):
            self._open.pop(job_id, None)  # there is no other
            if response.has_error():
                raise _error(name, response.error())
            return {t.name(): t.as_numpy() for t in response.output_tensors()}
        raise EngineError(f"{name}: answered nothing")

    def stream(self, name: str, inputs: Mapping[str, Array]) -> Iterator[dict[str, Array]]:
        """Call a decoupled model; yields the outputs of each response that has any."""
        self._check()
        job_id = uuid.uuid4().hex
        request = self._request(name, inputs, [tensor.name for tensor in MODELS[name].outputs], job_id)
        for response in self._call_in_thread(name, job_id, lambda: _many(request, job_id)):
            if response.has_error():
                raise _error(name, response.error())
            tensors = {t.name(): t.as_numpy() for t in response.output_tensors()}
            if tensors:
                yield tensors

    def _request(self, name: str, inputs: Mapping[str, Array], outputs: list[str], job_id: str) -> Any:
        tensors = [_tensor(name, key, value) for key, value in inputs.items()]
        if any(tensor.name == "job_id" for tensor in MODELS[name].inputs):
            tensors.append(_tensor(name, "job_id", np.array([job_id.encode()], np.object_)))
            tensors.append(_tensor(name, "owner_pid", np.array([os.getpid()], np.int64)))
        return pb_utils.InferenceRequest(
            model_name=name, inputs=tensors, requested_output_names=outputs, preferred_memory=_cpu()
        )

    def _call_in_thread(self, name: str, job_id: str, call: Callable[[], Iterator[Any]]) -> Iterator[Any]:
        """Run a blocking call in a thread of its own and yield its responses.

        Triton never wakes a caller whose callee was killed; then the thread is left behind and the job fails.
        """
        answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        pid = process_registry.serving_pid(name)

        def work() -> None:
            try:
                for response in call():
                    answers.put(response)
                answers.put(None)
            except BaseException as error:  # handed to the waiting caller, which raises it
                answers.put(error)

        if pid is not None and not process_registry.is_alive(pid):
            raise ModelUnavailableError(f"{name}: its process has died and is being restarted")
        threading.Thread(target=work, name=f"bls-{name}", daemon=True).start()
        self._open[job_id] = name
        while True:
            try:
                answer = answers.get(timeout=TICK_S)
            except queue.Empty:
                self._check_alive(name, job_id, pid)
                continue
            if answer is None or isinstance(answer, BaseException):
                self._open.pop(job_id, None)
            if answer is None:
                return
            if isinstance(answer, pb_utils.TritonModelException):
                raise (as_resource_error(name, answer) or ModelUnavailableError(f"{name}: {answer}")) from answer
            if isinstance(answer, BaseException):
                raise answer
            yield answer

    def _check_alive(self, name: str, job_id: str, pid: int | None) -> None:
        if pid is not None and not process_registry.is_alive(pid):
            raise ModelUnavailableError(f"{name}: its process died in the middle of the job")
        try:
            self._check()
        except RequestCancelledError:
            self._cancel(name, job_id)
            raise

    def close(self) -> None:
        """Cancel every call that is still under way, because the job has ended without it."""
        for job_id, name in list(self._open.items()):
            if process_registry.model_alive(name):
                self._cancel(name, job_id)

    def _cancel(self, name: str, job_id: str) -> None:
        """Tell a model to drop a job of this caller; cancelling the parent does not cancel its children by itself."""
        self._open.pop(job_id, None)
        spec = MODELS[name]
        if not any(tensor.name == "cancel" for tensor in spec.inputs):
            return
        request = pb_utils.InferenceRequest(
            model_name=name,
            inputs=[_tensor(name, "cancel", np.array([job_id.encode()], np.object_))],
            requested_output_names=[tensor.name for tensor in spec.outputs],
            preferred_memory=_cpu(),
        )
        for _ in _many(request, uuid.uuid4().hex) if spec.decoupled else _one(request):
            pass


class ServedNetworks:
    """The `Networks` of a served stage: local graphs in this process, all others by BLS."""

    def __init__(self, caller: BlsClient, local: LocalNetworks) -> None:
        self._caller, self._local = caller, local

    def run(self, name: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run the network where its ModelSpec says."""
        where = self._local if MODELS[name].local else self._caller
        return where.run(name, inputs, outputs)
