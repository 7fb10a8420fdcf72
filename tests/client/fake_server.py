"""A real gRPC server that speaks KServe v2 in front of a scripted model."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

from heartvoice.client.wire import FINAL, to_raw
from heartvoice.contracts import RENDER, SONG, ModelSpec

Stream = Callable[[Any, grpc.ServicerContext], Iterator[Any]]
REPORT = {"seed": 7, "preset": "tiny", "random_weights": True, "timings": {"lm_s": 0.5}}


def infer_response(outputs: dict[str, Any], model: ModelSpec = SONG, *, final: bool = False) -> Any:
    """A `ModelInferResponse` as Triton builds it: raw contents and the final flag."""
    response = service_pb2.ModelInferResponse(model_name=model.name)
    response.parameters[FINAL].bool_param = final
    for name, value in outputs.items():
        spec = model.output(name)
        array = np.array([value], dtype=object) if spec.dtype == "BYTES" else np.asarray(value)
        response.outputs.add(name=name, datatype=spec.dtype, shape=array.shape)
        response.raw_output_contents.append(to_raw(array, spec))
    return response


def stream_response(outputs: dict[str, Any], *, final: bool = False) -> Any:
    """A `ModelStreamInferResponse` with outputs."""
    return service_pb2.ModelStreamInferResponse(infer_response=infer_response(outputs, final=final))


def error_response(text: str) -> Any:
    """A `ModelStreamInferResponse` with an error."""
    return service_pb2.ModelStreamInferResponse(error_message=text)


def samples(start: int, n_samples: int) -> Any:
    """float32 [2, N] whose value tells its position."""
    ramp = np.arange(start, start + n_samples, dtype=np.float32) / np.float32(1e6)
    return np.stack([ramp, -ramp])


def audio(start: int, n_samples: int) -> Any:
    """An audio response of `samples`."""
    return stream_response({"AUDIO": samples(start, n_samples), "START": [start]})


def codes(start: int, n_frames: int) -> Any:
    """A codes response, every frame its own index."""
    frames = np.tile(np.arange(start, start + n_frames, dtype=np.int32), (8, 1))
    return stream_response({"CODES": frames, "START": [start]})


def event(stage: str, done: int, total: int, seconds: float = 1.0) -> Any:
    """A progress response."""
    fields = {"stage": stage, "done": done, "total": total, "seconds": seconds}
    return stream_response({"EVENT": json.dumps(fields).encode()})


def report(**changes: Any) -> Any:
    """The report's response."""
    return stream_response({"REPORT": json.dumps(REPORT | changes).encode()})


def final() -> Any:
    """The empty final response."""
    return stream_response({}, final=True)


def short_song(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
    """Two chunks, the report, the end; events and codes if the request asks for them."""
    wanted = {tensor.name for tensor in request.inputs}
    if "events" in wanted:
        yield event("lm", 10, 20)
    if "return_codes" in wanted:
        yield codes(0, 12)
    yield audio(0, 48_000)
    if "events" in wanted:
        yield event("codec", 20, 20)
    if "return_codes" in wanted:
        yield codes(12, 8)
    yield audio(48_000, 28_800)
    yield report(samples=76_800)
    yield final()


def endless_song(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
    """Chunks until the caller is gone."""
    gone = threading.Event()
    context.add_callback(gone.set)
    yield event("lm", 10, 3000)
    start = 0
    while not gone.wait(0.05):
        yield audio(start, 4800)
        start += 4800


def silent_song(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
    """Nothing at all, until the caller is gone."""
    gone = threading.Event()
    context.add_callback(gone.set)
    gone.wait(20)
    yield from ()


def scripted(*responses: Any) -> Stream:
    """A model that answers with these, whatever it is asked."""

    def stream(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        yield from responses

    return stream


def in_turn(*streams: Stream) -> Stream:
    """A model that behaves differently at every call; the last behaviour stays."""
    left = list(streams)

    def stream(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        yield from (left.pop(0) if len(left) > 1 else left[0])(request, context)

    return stream


def abort(code: grpc.StatusCode, details: str) -> Stream:
    """A model, or a proxy before it, that fails the call."""

    def stream(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        context.abort(code, details)
        yield

    return stream


def render_file(request: Any, context: grpc.ServicerContext) -> Any:
    """A file that names the format that was asked for."""
    outputs = {"FILE": b"file:" + input_bytes(request, "format"), "REPORT": json.dumps(REPORT).encode()}
    return infer_response(outputs, RENDER)


def input_raw(request: Any, name: str) -> bytes:
    """The raw contents of an input."""
    names = [tensor.name for tensor in request.inputs]
    raw: bytes = request.raw_input_contents[names.index(name)]
    return raw


def input_bytes(request: Any, name: str) -> bytes:
    """The one element of a BYTES input."""
    return input_raw(request, name)[4:]


class FakeServer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Holds the scripts and what has been seen; `cancelled` is set when a caller left early."""

    def __init__(self) -> None:
        self.song: Stream = short_song
        self.render: Callable[[Any, grpc.ServicerContext], Any] = render_file
        self.ready = True
        self.models = {"song", "render"}
        self.requests: list[Any] = []
        self.metadata: list[tuple[str, str]] = []
        self.cancelled = threading.Event()
        self._server: Any = None
        self.url = ""

    def start(self, credentials: Any = None, port: int = 0) -> FakeServer:
        """Listen on a loopback port."""
        options = [
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", -1),
            ("grpc.so_reuseport", 0),
        ]
        self._server = grpc.server(ThreadPoolExecutor(16), options=options)
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        address = f"127.0.0.1:{port}"
        if credentials is None:
            port = self._server.add_insecure_port(address)
        else:
            port = self._server.add_secure_port(address, credentials)
        self.url = f"127.0.0.1:{port}"
        self._server.start()
        return self

    def wait_for_request(self, timeout_s: float = 5.0) -> None:
        """Return a moment after the first request has arrived."""
        deadline = time.monotonic() + timeout_s
        while not self.requests and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)

    def stop(self) -> None:
        """Die at once, in the middle of whatever is going on."""
        self._server.stop(None).wait()

    def stop_soon(self) -> None:
        """Die from within a call."""
        threading.Thread(target=self.stop).start()

    def start_later(self, port: int, after_s: float) -> None:
        """Listen on `port` after a while."""
        threading.Timer(after_s, self.start, kwargs={"port": port}).start()

    def ModelStreamInfer(self, request_iterator: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        """Answer each request by the script."""
        for request in request_iterator:
            yield from self._watched(request, context)

    def _watched(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        done = threading.Event()
        context.add_callback(lambda: None if done.is_set() else self.cancelled.set())
        self._see(request, context)
        yield from self.song(request, context)
        done.set()

    def ModelInfer(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Answer by the script."""
        done = threading.Event()
        context.add_callback(lambda: None if done.is_set() else self.cancelled.set())
        self._see(request, context)
        response = self.render(request, context)
        done.set()
        return response

    def _see(self, request: Any, context: grpc.ServicerContext) -> None:
        self.requests.append(request)
        self.metadata = [tuple(pair) for pair in context.invocation_metadata()]

    def ServerReady(self, request: Any, context: grpc.ServicerContext) -> Any:
        """As set."""
        return service_pb2.ServerReadyResponse(ready=self.ready)

    def ModelReady(self, request: Any, context: grpc.ServicerContext) -> Any:
        """As set."""
        return service_pb2.ModelReadyResponse(ready=request.name in self.models)
