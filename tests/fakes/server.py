"""A real KServe v2 gRPC server with scripted models."""

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

from heartvoice.client.wire import to_raw
from heartvoice.contracts.about import ABOUT
from heartvoice.contracts.constants import AUTO_PITCH_DOES, MIX_STEM_NAMES
from heartvoice.contracts.kserve import FINAL
from heartvoice.contracts.models import DEMUCS, RENDER, SONG, SPEAKER_ENCODER
from heartvoice.contracts.types import ModelSpec

Stream = Callable[[Any, grpc.ServicerContext], Iterator[Any]]
REPORT = {"seed": 7, "preset": "tiny", "random_weights": True, "timings": {"lm_s": 0.5}}
COVER_REPORT = REPORT | {
    "converted": True,
    "similarity": {"encoder": "resemblyzer", "before": 0.41, "after": 0.83},
    "f0": {"source_median_hz": 220.0, "result_median_hz": 196.0, "voice_median_hz": 130.0, "change_semitones": -2.0},
    "pitch": {
        "auto_pitch": "octave", "does": AUTO_PITCH_DOES["octave"], "shift_semitones": 0.0, "auto_shift_semitones": 0.0,
        "keeps_key": True,
    },
    "voice_sha256": "0123456789abcdef" * 4,
    "voice_consent": "me",
    "sample_rate_hz": 48_000,
    "warnings": [],
}  # fmt: skip
STEMS_REPORT = {
    "preset": "tiny", "random_weights": True, "sample_rate_hz": 44_100, "warnings": [],
    "timings": {"separation_s": 0.5},
}  # fmt: skip
SOURCES = ("drums", "bass", "other", "vocals")
VOICES = {"voice", "voice_audio", "voice_id"}
"""Inputs that name who sings; servers know no ids, but a gateway behind the same URL does."""


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


def stream_response(outputs: dict[str, Any], model: ModelSpec = SONG, *, final: bool = False) -> Any:
    """A `ModelStreamInferResponse` with outputs."""
    return service_pb2.ModelStreamInferResponse(infer_response=infer_response(outputs, model, final=final))


def error_response(text: str) -> Any:
    """A `ModelStreamInferResponse` with an error."""
    return service_pb2.ModelStreamInferResponse(error_message=text)


def samples(start: int, n_samples: int) -> Any:
    """Make float32 [2, N] whose values encode their positions."""
    ramp = np.arange(start, start + n_samples, dtype=np.float32) / np.float32(1e6)
    return np.stack([ramp, -ramp])


def audio(start: int, n_samples: int) -> Any:
    """An audio response of `samples`."""
    return stream_response({"AUDIO": samples(start, n_samples), "START": [start]})


def codes(start: int, n_frames: int) -> Any:
    """A codes response; every code is the index of its frame."""
    frames = np.tile(np.arange(start, start + n_frames, dtype=np.int32), (8, 1))
    return stream_response({"CODES": frames, "START": [start]})


def event(stage: str, done: int, total: int, seconds: float = 1.0) -> Any:
    """A progress response."""
    fields = {"stage": stage, "done": done, "total": total, "seconds": seconds}
    return stream_response({"EVENT": json.dumps(fields).encode()})


def report(**changes: Any) -> Any:
    """The report's response."""
    return stream_response({"REPORT": json.dumps(REPORT | changes).encode()})


def cover_report(**changes: Any) -> Any:
    """A complete report of a cover."""
    return stream_response({"REPORT": json.dumps(COVER_REPORT | changes).encode()})


def mix_stem_samples(start: int, n_samples: int) -> Any:
    """Make different instrumental and vocals, float32 [2, 2, N], whose sum is `samples`."""
    return np.stack([samples(start, n_samples) * np.float32(share) for share in (0.75, 0.25)])


def mix_stems(start: int, n_samples: int) -> Any:
    """A response of `mix_stem_samples`, of a song or a cover."""
    return stream_response({"STEMS": mix_stem_samples(start, n_samples), "START": [start]})


def stem_samples(start: int, n_samples: int, n_stems: int = 4) -> Any:
    """Make float32 [S, 2, N] whose values encode stem and position."""
    return np.stack([samples(start, n_samples) * np.float32(index + 1) for index in range(n_stems)])


def stems(start: int, n_samples: int, n_stems: int = 4) -> Any:
    """A stems response of `stem_samples`."""
    return stream_response({"STEMS": stem_samples(start, n_samples, n_stems), "START": [start]}, DEMUCS)


def stems_report(sources: Any = SOURCES, **changes: Any) -> Any:
    """A separation's report."""
    return stream_response({"REPORT": json.dumps(STEMS_REPORT | {"sources": sources} | changes).encode()}, DEMUCS)


def final() -> Any:
    """The empty final response."""
    return stream_response({}, final=True)


def asked_for(request: Any) -> set[str]:
    """Return the names of the request's inputs, without false settings."""
    given = zip(request.inputs, request.raw_input_contents, strict=True)
    return {tensor.name for tensor, raw in given if raw != b"\0"}


def job_report(wanted: set[str], **changes: Any) -> Any:
    """Make the report of a song or cover with the inputs `wanted`."""
    facts = COVER_REPORT if VOICES & wanted else REPORT
    facts = facts | ({"stems": list(MIX_STEM_NAMES)} if "stems" in wanted else {}) | changes
    return stream_response({"REPORT": json.dumps(facts).encode()})


def short_song(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
    """Stream two chunks and the report; on request also events, codes, and stems in other chunks."""
    wanted = asked_for(request)
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
    if "stems" in wanted:
        yield mix_stems(0, 30_000)
        yield mix_stems(30_000, 46_800)
    yield job_report(wanted, samples=76_800)
    yield final()


def short_cover(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
    """Stream 1.6 s in two chunks with events between them; on request also stems."""
    wanted = asked_for(request)
    yield event("separate", 10, 20)
    yield audio(0, 48_000)
    if "stems" in wanted:
        yield mix_stems(0, 48_000)
    yield event("convert", 20, 20)
    yield event("mix", 20, 20)
    yield audio(48_000, 28_800)
    if "stems" in wanted:
        yield mix_stems(48_000, 28_800)
    yield job_report(wanted, samples=76_800)
    yield final()


def short_stems(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
    """Stream 1.5 s of the requested stems in two chunks, in the server's order."""
    wanted = {tensor.name for tensor in request.inputs}
    names = input_bytes(request, "sources").decode().split(",") if "sources" in wanted else SOURCES
    sources = tuple(name for name in SOURCES if name in names)
    yield event("separate", 10, 19)
    yield stems(0, 44_100, len(sources))
    yield stems(44_100, 22_050, len(sources))
    yield stems_report(sources, samples=66_150)
    yield final()


def embedding(request: Any, context: grpc.ServicerContext) -> Any:
    """Return a unit vector that depends on the file: equal files have equal voices."""
    data = input_bytes(request, "file") if request.inputs[0].name == "file" else request.raw_input_contents[0]
    vector = np.random.default_rng(sum(data)).standard_normal(256)
    outputs = {
        "EMBEDDING": (vector / np.linalg.norm(vector)).astype(np.float32),
        "REPORT": json.dumps({"encoder": "resemblyzer", "seconds": 6.0, "random_weights": False}).encode(),
    }
    return infer_response(outputs, SPEAKER_ENCODER)


def endless_stems(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
    """Stream stems until the caller has left."""
    gone = threading.Event()
    context.add_callback(gone.set)
    yield event("separate", 10, 3000)
    start = 0
    while not gone.wait(0.05):
        yield stems(start, 4410)
        start += 4410


def endless_song(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
    """Stream chunks until the caller has left."""
    gone = threading.Event()
    context.add_callback(gone.set)
    yield event("lm", 10, 3000)
    start = 0
    while not gone.wait(0.05):
        yield audio(start, 4800)
        start += 4800


def silent_song(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
    """Send nothing until the caller has left."""
    gone = threading.Event()
    context.add_callback(gone.set)
    gone.wait(300)
    yield from ()


def scripted(*responses: Any) -> Stream:
    """Make a model that sends these responses to every request."""

    def stream(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        yield from responses

    return stream


def in_turn(*streams: Stream) -> Stream:
    """Make a model with a different behaviour per call; the last one repeats."""
    left = list(streams)

    def stream(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        yield from (left.pop(0) if len(left) > 1 else left[0])(request, context)

    return stream


def abort(code: grpc.StatusCode, details: str) -> Stream:
    """Make a model (or proxy) that fails the call."""

    def stream(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        context.abort(code, details)
        yield

    return stream


def render_file(request: Any, context: grpc.ServicerContext) -> Any:
    """Return a file whose content is the requested format, for songs and covers."""
    has_voice = asked_for(request) & VOICES
    made = json.dumps(COVER_REPORT if has_voice else REPORT).encode()
    outputs = {"FILE": b"file:" + input_bytes(request, "format"), "REPORT": made}
    return infer_response(outputs, RENDER)


def input_raw(request: Any, name: str) -> bytes:
    """Return the raw contents of an input."""
    names = [tensor.name for tensor in request.inputs]
    raw: bytes = request.raw_input_contents[names.index(name)]
    return raw


def input_bytes(request: Any, name: str) -> bytes:
    """Return the single element of a BYTES input."""
    return input_raw(request, name)[4:]


class FakeServer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Holds the scripts and the received requests; `cancelled` is set when a caller leaves early."""

    def __init__(self) -> None:
        self.song: Stream = short_song
        self.cover: Stream = short_cover
        self.demucs: Stream = short_stems
        self.svc: Stream = scripted()
        self.speaker_encoder: Callable[[Any, grpc.ServicerContext], Any] = embedding
        self.render: Callable[[Any, grpc.ServicerContext], Any] = render_file
        self.ready = True
        self.facts: dict[str, str] | None = None
        """What the server says of itself, as `heartvoice serve` has it; None is a server that it did not start."""
        self.models = {"song", "cover", "render", "demucs", "speaker_encoder"}
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

    def wait_for_request(self, timeout_s: float = 60.0) -> None:
        """Wait until shortly after the first request."""
        deadline = time.monotonic() + timeout_s
        while not self.requests and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)

    def stop(self) -> None:
        """Stop immediately, during running calls."""
        self._server.stop(None).wait()

    def stop_soon(self) -> None:
        """Stop from within a call."""
        threading.Thread(target=self.stop).start()

    def start_later(self, port: int, after_s: float) -> None:
        """Listen on `port` after a delay."""
        threading.Timer(after_s, self.start, kwargs={"port": port}).start()

    def ServerMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:
        return service_pb2.ServerMetadataResponse(name="triton" if self.facts is None else ABOUT, version="2.51.0")

    def ModelConfig(self, request: Any, context: grpc.ServicerContext) -> Any:
        if self.facts is None or request.name != ABOUT:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such model")
        answer = service_pb2.ModelConfigResponse()
        for name, value in (self.facts or {}).items():
            answer.config.parameters[name].string_value = value
        return answer

    def ModelStreamInfer(self, request_iterator: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        """Answer each request by the script."""
        for request in request_iterator:
            yield from self._watched(request, context)

    def _watched(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        done = threading.Event()
        context.add_callback(lambda: None if done.is_set() else self.cancelled.set())
        self._see(request, context)
        yield from getattr(self, request.model_name)(request, context)
        done.set()

    def ModelInfer(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Answer by the script."""
        done = threading.Event()
        context.add_callback(lambda: None if done.is_set() else self.cancelled.set())
        self._see(request, context)
        response = getattr(self, request.model_name)(request, context)
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
