"""What does the gateway cost? The same calls straight to the server and through a gateway, in turns.

    python -m heartvoice.benchmarks.gateway [--preset tiny] [--n 200] [--quick]

Over an exported repository (`heartvoice export --preset tiny --random-weights 0` first). Server, gateway and caller are
three processes on this host. `added_ms` is the median of the differences of neighbours; `gateway_cpu_ms` is the
gateway's own processor time for each call: where the host has no core to spare, throughput sinks by that. The gateway
knows its caller by a token, checks every request and writes its access log, as it would in earnest.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import soundfile
from tritonclient.grpc import service_pb2, service_pb2_grpc

from heartvoice import noise
from heartvoice.benchmarks.harness import RESULTS, Run, Timing, alternate
from heartvoice.contracts import HEARTMULA, LOADED, MODELS, SONG, SPEAKER_ENCODER, SPEAKER_NETWORK
from heartvoice.embedded.server import EmbeddedServer, ServerOptions, free_port
from heartvoice.engines import default_threads
from heartvoice.errors import EngineError
from heartvoice.gateway.callers import add_token
from heartvoice.repository import Repository

DIRECT, GATEWAY = "direct", "gateway"
CALLERS = 4
"""At once, where throughput is measured."""
REFUSED_BYTES = 50_000_000
"""A body that the server refuses as soon as it has it: nothing but transport."""


@dataclass(frozen=True)
class Way:
    """One way to the server."""

    stub: Any
    metadata: Sequence[tuple[str, str]]

    def infer(self, message: Any) -> None:
        """A unary call."""
        self.stub.ModelInfer(message, metadata=self.metadata)

    def refused(self, message: Any) -> None:
        """A unary call that the model refuses."""
        try:
            self.infer(message)
        except grpc.RpcError as error:
            if "INVALID_ARG" in error.details():
                return
            raise
        raise AssertionError("the model did not refuse it")

    def live(self) -> None:
        """The least that a server can be asked."""
        self.stub.ServerLive(service_pb2.ServerLiveRequest(), metadata=self.metadata)

    def stream(self, message: Any) -> list[float]:
        """Seconds from the request to each response."""
        began = time.perf_counter()
        times = []
        for response in self.stub.ModelStreamInfer(iter([message]), metadata=self.metadata):
            times.append(time.perf_counter() - began)
            if response.error_message:
                raise EngineError(response.error_message)
        return times


def request(model: str, **inputs: Any) -> Any:
    """A request by the contract."""
    message = service_pb2.ModelInferRequest(model_name=model)
    for name, value in inputs.items():
        spec = MODELS[model].input(name)
        if spec.dtype == "BYTES":
            shape, raw = [1], struct.pack("<I", len(value)) + value
        else:
            array = np.asarray(value, {"FP32": np.float32, "INT64": np.int64, "BOOL": np.bool_}[spec.dtype])
            shape, raw = list(array.shape), array.tobytes()
        message.inputs.add(name=name, datatype=spec.dtype, shape=shape)
        message.raw_input_contents.append(raw)
    return message


def recording(seconds: float) -> bytes:
    """Noise as a stereo WAV file at 48 kHz."""
    audio = 0.1 * noise.normal(1, "gateway", 0, (round(seconds * 48_000), 2))
    file = io.BytesIO()
    soundfile.write(file, np.clip(audio, -1, 1), 48_000, format="WAV", subtype="PCM_16")
    return file.getvalue()


@contextmanager
def gateway(upstream: str, folder: Path) -> Iterator[tuple[str, str, psutil.Process]]:
    """A gateway without limits in a process of its own: its address, a token for it, the process."""
    token = add_token(folder / "tokens", "benchmark")
    command = [
        sys.executable, "-m", "heartvoice.client.cli", "gateway", "--json", "--listen", f"127.0.0.1:{free_port()}",
        "--upstream", upstream, "--metrics-port", "0", "--tokens", str(folder / "tokens"), "--models", ",".join(LOADED),
        "--access-log", str(folder / "access.log"), "--requests-per-s", "1e9", "--bytes-per-minute", str(10**15),
        "--concurrent", "1000", "--drain-s", "1",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())["grpc"], token, psutil.Process(process.pid)
        finally:
            process.terminate()


@contextmanager
def ways(server: EmbeddedServer) -> Iterator[tuple[dict[str, Way], psutil.Process]]:
    """Both ways, and the gateway's process."""
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    with (
        tempfile.TemporaryDirectory(prefix="heartvoice-gateway-") as folder,
        gateway(server.url, Path(folder)) as (address, token, process),
        grpc.insecure_channel(server.url, options) as straight,
        grpc.insecure_channel(address, options) as through,
    ):
        stub = service_pb2_grpc.GRPCInferenceServiceStub
        headers = (("authorization", f"Bearer {token}"),)
        yield {DIRECT: Way(stub(straight), ()), GATEWAY: Way(stub(through), headers)}, process


def cpu_s(process: psutil.Process) -> float:
    """Processor time so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


def added_ms(timings: Mapping[str, Timing]) -> float:
    """Median of the differences of neighbours."""
    pairs = zip(timings[GATEWAY].seconds, timings[DIRECT].seconds, strict=True)
    return float(np.median([through - straight for through, straight in pairs])) * 1e3


def add(run: Run, case: str, timings: Mapping[str, Timing], **facts: Any) -> None:
    """Two rows: straight, and through the gateway with what it adds."""
    run.add(case, DIRECT, timings[DIRECT])
    run.add(case, GATEWAY, timings[GATEWAY], baseline=timings[DIRECT], added_ms=added_ms(timings), **facts)
    run.save()


def calls(
    run: Run, case: str, both: Mapping[str, Callable[[], object]], process: psutil.Process, n: int, each: int = 1
) -> None:
    """Time calls in turns; `each` is how many calls one of them is."""
    before, warmup = cpu_s(process), min(5, n)
    timings = alternate(both, n=n, warmup=warmup)
    add(run, case, timings, gateway_cpu_ms=(cpu_s(process) - before) * 1e3 / (n + warmup) / each)


def batch(pool: ThreadPoolExecutor, way: Way, message: Any, count: int) -> None:
    """Many calls by several callers at once."""
    list(pool.map(lambda _: way.infer(message), range(count)))


def streams(run: Run, case: str, both: Mapping[str, Way], message: Any, n: int) -> None:
    """First response, mean gap between responses, and the whole."""
    seen: dict[str, list[list[float]]] = {name: [] for name in both}

    def one(name: str) -> None:
        seen[name].append(both[name].stream(message))

    alternate({name: partial(one, name) for name in both}, n=n, warmup=1)
    kept = {name: times[1:] for name, times in seen.items()}
    parts: dict[str, Callable[[list[float]], float]] = {
        "first response": lambda times: times[0],
        "gap between responses": lambda times: (times[-1] - times[0]) / max(len(times) - 1, 1),
        "whole stream": lambda times: times[-1],
    }
    for name, part in parts.items():
        add(run, f"{case}: {name}", {way: Timing(tuple(map(part, times))) for way, times in kept.items()},
            responses=len(kept[GATEWAY][0]))  # fmt: skip


def measure(run: Run, both: Mapping[str, Way], process: psutil.Process, n: int) -> None:
    """All cases, cheapest first."""
    few, several = max(n // 20, 1), max(n // 8, 1)
    small = request(SPEAKER_NETWORK.name, features=np.zeros((1, 16, 40)))
    reference = request(SPEAKER_ENCODER.name, file=recording(3.0))
    length: dict[str, Any] = {"duration_s": [20.0], "min_duration_s": [20.0], "codec_window": [93], "codec_steps": [1]}
    song = request(SONG.name, lyrics=b"la", events=[True], **length)
    codes = request(HEARTMULA.name, lyrics=b"la", duration_s=[4.0], min_duration_s=[4.0], events=[True])

    def each(call: Callable[[Way], object]) -> dict[str, Callable[[], object]]:
        return {name: partial(call, way) for name, way in both.items()}

    calls(run, "ServerLive, one caller", each(Way.live), process, n)
    calls(run, "small unary (speaker_network), one caller", each(lambda way: way.infer(small)), process, n)
    calls(run, "unary (speaker_encoder, 3 s), one caller", each(lambda way: way.infer(reference)), process, several)
    streams(run, "codes (heartmula, 4 s)", both, codes, several)
    streams(run, "song (20 s)", both, song, few)
    body = request(SPEAKER_ENCODER.name, file=bytes(REFUSED_BYTES))
    calls(run, f"{REFUSED_BYTES // 10**6} MB that are refused", each(lambda way: way.refused(body)), process, few)
    large = request(SPEAKER_ENCODER.name, file=recording(300.0))
    calls(run, "58 MB (speaker_encoder, 300 s)", each(lambda way: way.infer(large)), process, few)
    with ThreadPoolExecutor(CALLERS) as pool:
        for name, message, count in (("speaker_network", small, 100), ("speaker_encoder, 3 s", reference, 12)):
            many = {way: partial(batch, pool, both[way], message, count) for way in both}
            calls(run, f"{count} calls of {CALLERS} callers ({name})", many, process, few, each=count)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="heartvoice.benchmarks.gateway", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--preset", default="tiny", help="which of build/repository")
    parser.add_argument("--repository", type=Path, help="in place of build/repository/PRESET")
    parser.add_argument("--n", type=int, default=200, help="rounds of the cheapest case")
    parser.add_argument("--quick", action="store_true", help="few rounds")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the result goes")
    args = parser.parse_args(arguments)
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    repository = Repository(args.repository or Path("build/repository") / args.preset)
    run = Run("gateway", repository.preset.name, str(repository.index["precision"]), default_threads(),
              results=args.results, about=dict(repository.about) | {"callers": CALLERS})  # fmt: skip
    served = ServerOptions(repository.root, free_port(), free_port())
    with EmbeddedServer(served) as server, ways(server) as (both, process):
        measure(run, both, process, 20 if args.quick else args.n)
    run.finish(json_line=False)


if __name__ == "__main__":
    main()
