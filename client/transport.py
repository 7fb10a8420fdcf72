"""The interface of what carries a client's requests, if that is not gRPC; and the stubs that a client calls it by.

A transport answers with tensors. Its stubs look like those that gRPC generates, so that all of a client's own code
runs: checks, encoding, retries, order of messages, decoding.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import suppress
from typing import Any, Protocol

import grpc.aio
import numpy as np
from tritonclient.grpc import service_pb2

from heartvoice.arrays import Array
from heartvoice.client import wire
from heartvoice.contracts.kserve import FINAL
from heartvoice.contracts.models import MODELS
from heartvoice.contracts.types import NUMPY_DTYPE, ModelSpec, TensorSpec
from heartvoice.errors import EngineError

Tensors = Mapping[str, Any]
"""Arrays by the names of a model's inputs or outputs. An output of text may be bytes, str, or a dict for JSON."""


class Transport(Protocol):
    """Answers a client's requests in place of a server: a fake for your tests, or another way to reach a server.

    `heartvoice.contracts.MODELS` has every model's inputs and outputs. Text inputs arrive as bytes in an object array
    [1]. Each method may raise any `HeartvoiceError`; `ModelUnavailableError` makes the client try again, as a busy
    server does. Deadlines and `close` do not interrupt it. It runs in the caller's thread or event loop.
    """

    def infer(self, model: str, inputs: Tensors) -> Tensors:
        """Return all outputs of a unary model: `render` or `speaker_encoder`."""

    def stream(self, model: str, inputs: Tensors) -> Iterable[Tensors]:
        """Yield the responses of a streamed model, such as {"AUDIO": ..., "START": [0]}, and {"REPORT": ...} last."""


class SyncStub:
    """A transport as a stub of `grpc`."""

    def __init__(self, transport: Transport) -> None:
        self.ServerReady = _Method(lambda _: service_pb2.ServerReadyResponse(ready=True))
        self.ModelReady = _Method(_model_ready)
        self.ModelInfer = _Method(lambda message: _infer(transport, message))
        self._transport = transport

    def ModelStreamInfer(self, requests: Iterable[Any], **_: Any) -> SyncStream:  # noqa: N802 (gRPC's name)
        """Answer the one request."""
        (message,) = requests
        return SyncStream(_responses(self._transport, message))


class SyncStream:
    """The streamed call of a `SyncStub`."""

    def __init__(self, responses: Generator[Any, None, None]) -> None:
        self._responses = responses

    def __next__(self) -> Any:
        return next(self._responses)

    def cancel(self) -> None:
        """Close the transport's generator; no-op if it has ended."""
        with suppress(ValueError):  # it is running in another thread, and ends by itself
            self._responses.close()


class _Method:
    def __init__(self, answer: Callable[[Any], Any]) -> None:
        self._answer = answer

    def future(self, message: Any, **_: Any) -> _Future:
        return _Future(self._answer, message)


class _Future:
    def __init__(self, answer: Callable[[Any], Any], message: Any) -> None:
        self._answer, self._message = answer, message

    def result(self) -> Any:
        return self._answer(self._message)

    def cancel(self) -> None:
        """Nothing runs outside `result`."""


class AsyncStub:
    """A transport as a stub of `grpc.aio`."""

    def __init__(self, transport: Transport) -> None:
        self.ServerReady = _async_method(lambda _: service_pb2.ServerReadyResponse(ready=True))
        self.ModelReady = _async_method(_model_ready)
        self.ModelInfer = _async_method(lambda message: _infer(transport, message))
        self._transport = transport

    def ModelStreamInfer(self, requests: Iterable[Any], **_: Any) -> AsyncStream:  # noqa: N802 (gRPC's name)
        """Answer the one request."""
        (message,) = requests
        return AsyncStream(_responses(self._transport, message))


class AsyncStream(SyncStream):
    """The streamed call of an `AsyncStub`."""

    async def read(self) -> Any:
        """Return the next response, or EOF."""
        await asyncio.sleep(0)  # lets other tasks run, and this one be cancelled
        return next(self._responses, grpc.aio.EOF)

    async def code(self) -> grpc.StatusCode:
        """Return OK: failures are raised by `read`."""
        return grpc.StatusCode.OK


class _AsyncCall:
    def __init__(self, answer: Callable[[Any], Any], message: Any) -> None:
        self._answer, self._message = answer, message

    def __await__(self) -> Generator[Any, None, Any]:
        return self._answer(self._message)
        yield  # makes this a generator

    def cancel(self) -> None:
        """Nothing runs outside `await`."""


def _async_method(answer: Callable[[Any], Any]) -> Callable[..., _AsyncCall]:
    return lambda message, **_: _AsyncCall(answer, message)


def _model_ready(message: Any) -> Any:
    return service_pb2.ModelReadyResponse(ready=message.name in MODELS)


def _infer(transport: Transport, message: Any) -> Any:
    model = MODELS[message.model_name]
    return _encode(model, transport.infer(model.name, _inputs(model, message)))


def _responses(transport: Transport, message: Any) -> Generator[Any, None, None]:
    """The transport's responses as messages, then the empty final one."""
    model = MODELS[message.model_name]
    answers = transport.stream(model.name, _inputs(model, message))
    try:
        for outputs in answers:
            yield service_pb2.ModelStreamInferResponse(infer_response=_encode(model, outputs))
    finally:
        if isinstance(answers, Generator):
            answers.close()
    final = service_pb2.ModelInferResponse(model_name=model.name)
    final.parameters[FINAL].bool_param = True
    yield service_pb2.ModelStreamInferResponse(infer_response=final)


def _inputs(model: ModelSpec, message: Any) -> Tensors:
    return {
        tensor.name: wire.from_raw(raw, tensor.datatype, tuple(tensor.shape), model.input(tensor.name))
        for tensor, raw in zip(message.inputs, message.raw_input_contents, strict=True)
    }


def _encode(model: ModelSpec, outputs: Tensors) -> Any:
    specs = {spec.name: spec for spec in model.outputs}
    response = service_pb2.ModelInferResponse(model_name=model.name)
    for name, value in outputs.items():
        if name not in specs:
            raise EngineError(f"{model.name}: expected outputs of {', '.join(specs)}, got {name!r}")
        array = _array(value, specs[name])
        response.outputs.add(name=name, datatype=specs[name].dtype, shape=array.shape)
        response.raw_output_contents.append(wire.to_raw(array, specs[name]))
    return response


def _array(value: Any, spec: TensorSpec) -> Array:
    if spec.dtype != "BYTES":
        return np.asarray(value, NUMPY_DTYPE[spec.dtype])
    text = value[0] if isinstance(value, np.ndarray) else json.dumps(value) if isinstance(value, dict) else value
    return np.array([text.encode() if isinstance(text, str) else bytes(text)], dtype=object)
