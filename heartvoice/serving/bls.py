"""Calls from one model to another (BLS), which end when the callee dies or the job is cancelled."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from heartvoice.arrays import Array
from heartvoice.contracts.models import MODELS
from heartvoice.contracts.types import NUMPY_DTYPE
from heartvoice.errors import (
    EngineError,
    HeartvoiceError,
    ModelUnavailableError,
    RequestCancelledError,
    class_of_status,
    from_wire,
)
from heartvoice.resource_errors import as_resource_error
from heartvoice.runtime.networks import Check, LocalNetworks, never_cancelled
from heartvoice.serving import process_registry
from heartvoice.serving.workarounds import killed_callee
from heartvoice.serving.workarounds.acknowledgements import MORE_INPUTS, AckSender
from heartvoice.serving.workarounds.array_frames import large_arrays
from heartvoice.serving.workarounds.deferred_release import FINISHED_STREAMS


def _tensor(model: str, name: str, value: Array) -> Any:
    dtype = NUMPY_DTYPE[MODELS[model].input(name).dtype]
    return pb_utils.Tensor(name, np.ascontiguousarray(value, dtype=dtype))


def _cpu() -> Any:
    """Ask for outputs on the CPU: `as_numpy` fails for tensors on a GPU."""
    return pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0)


def _unary_response(request: Any) -> Iterator[Any]:
    """Yield the response of a unary model."""
    yield request.exec()


def _stream_responses(
    request: Any, job_id: str, inputs: dict[str, Array] | None = None
) -> Iterator[tuple[Any, dict[str, Array]]]:
    """Yield the responses of a decoupled model with the arrays that come beside them, acknowledging each.

    Raises:
        ConnectionError: the callee died while it sent arrays.
    """
    failed: ConnectionError | None = None
    with AckSender(job_id, inputs) as acks:
        responses = request.exec(decoupled=True)
        try:
            for response in responses:
                arrays: dict[str, Array] = {}
                try:
                    if failed is None and not response.has_error() and response.output_tensors():
                        arrays = acks.arrays()
                except ConnectionError as error:
                    failed = error  # an iterator that is left before its end would block whoever frees it
                acks.take()
                if failed is None:
                    yield response, arrays
        finally:
            FINISHED_STREAMS.hold(responses)
    if failed is not None:
        raise failed


def _error(model: str, error: Any) -> HeartvoiceError:
    text = error.message()
    used_up = as_resource_error(model, text)
    if used_up is not None:
        return used_up
    if "is not healthy" in text:
        return ModelUnavailableError(f"{model}: its process has died")
    if "is not ready" in text or "unknown model" in text:
        return ModelUnavailableError(f"{model}: not loaded")
    for name in ("UNAVAILABLE", "NOT_FOUND", "CANCELLED"):  # the names are those of gRPC's statuses
        if error.code() == getattr(pb_utils.TritonError, name):
            return from_wire(text, class_of_status(name))
    return from_wire(text)


class BlsClient:
    """Calls other models for one job. A waiting call ends when `check` raises or the callee dies."""

    def __init__(self, check: Check = never_cancelled) -> None:
        """`check` is called before each call and while it waits."""
        self._check = check
        self._open: dict[str, str] = {}
        """Models by the job ids of the calls under way."""

    def run(self, name: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Call a unary model. Part of the `Networks` protocol."""
        self._check()
        wanted = list(outputs or [tensor.name for tensor in MODELS[name].outputs])
        job_id = uuid.uuid4().hex
        request = self._request(name, inputs, wanted, job_id)
        for response in self._call(name, job_id, lambda: _unary_response(request)):
            self._open.pop(job_id, None)  # there is no other
            if response.has_error():
                raise _error(name, response.error())
            return {t.name(): t.as_numpy() for t in response.output_tensors()}
        raise EngineError(f"{name}: answered nothing")

    def stream(self, name: str, inputs: Mapping[str, Array]) -> Iterator[dict[str, Array]]:
        """Call a decoupled model and yield the outputs of each response that has any."""
        self._check()
        spec = MODELS[name]
        apart = {
            key: np.ascontiguousarray(value, dtype=NUMPY_DTYPE[spec.input(key).dtype])
            for key, value in large_arrays(inputs).items()
            if spec.input(key).optional
        }
        job_id = uuid.uuid4().hex + (MORE_INPUTS.decode() if apart else "")
        sent = {key: value for key, value in inputs.items() if key not in apart}
        request = self._request(name, sent, [tensor.name for tensor in spec.outputs], job_id)
        del inputs, sent
        try:
            for response, arrays in self._call(name, job_id, lambda: _stream_responses(request, job_id, apart)):
                if response.has_error():
                    raise _error(name, response.error())
                tensors = {t.name(): t.as_numpy() for t in response.output_tensors()} | arrays
                if tensors:
                    yield tensors
        except ConnectionError as error:
            raise ModelUnavailableError(f"{name}: its process died in the middle of the job") from error

    def _request(self, name: str, inputs: Mapping[str, Array], outputs: list[str], job_id: str) -> Any:
        tensors = [_tensor(name, key, value) for key, value in inputs.items()]
        if any(tensor.name == "job_id" for tensor in MODELS[name].inputs):
            tensors.append(_tensor(name, "job_id", np.array([job_id.encode()], np.object_)))
            tensors.append(_tensor(name, "owner_pid", np.array([os.getpid()], np.int64)))
        return pb_utils.InferenceRequest(
            model_name=name, inputs=tensors, requested_output_names=outputs, preferred_memory=_cpu()
        )

    def _call(self, name: str, job_id: str, call: Callable[[], Iterator[Any]]) -> Iterator[Any]:
        """Yield the responses of a call, and remember it while it is under way."""
        self._open[job_id] = name
        try:
            yield from killed_callee.responses(name, call, lambda: self._check_job(name, job_id))
        except pb_utils.TritonModelException as error:
            self._open.pop(job_id, None)
            raise (as_resource_error(name, error) or ModelUnavailableError(f"{name}: {error}")) from error
        except Exception:
            self._open.pop(job_id, None)
            raise
        self._open.pop(job_id, None)

    def _check_job(self, name: str, job_id: str) -> None:
        try:
            self._check()
        except RequestCancelledError:
            self._cancel(name, job_id)
            raise

    def close(self) -> None:
        """Cancel every call that is still under way."""
        for job_id, name in list(self._open.items()):
            if process_registry.model_alive(name):
                self._cancel(name, job_id)

    def _cancel(self, name: str, job_id: str) -> None:
        """Cancel a call. Triton does not cancel a request's inner calls with it."""
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
        for _ in _stream_responses(request, uuid.uuid4().hex) if spec.decoupled else _unary_response(request):
            pass


class ServedNetworks:
    """The networks of a served stage: local graphs run in this process, all others by BLS."""

    def __init__(self, caller: BlsClient, local: LocalNetworks) -> None:
        self._caller, self._local = caller, local

    def run(self, name: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run a network where its ModelSpec says."""
        where = self._local if MODELS[name].local else self._caller
        return where.run(name, inputs, outputs)
