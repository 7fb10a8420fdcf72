"""How much time does the gateway add to calls, compared with calls directly to the server?

    python -m benchmarks.gateway [--preset tiny] [--n 400] [--quick]

It needs an exported repository (first `heartvoice export --preset tiny --random-weights 0`) and takes less than four
minutes. Server, proxies and client are separate processes on this host. The gateway authenticates its client by a
token, checks every request and writes its access log, as in production. If HAProxy is installed (`apt-get install
haproxy`), the calls pass through it too: it checks nothing, and shows the cost of any proxy here.

`added_ms` is the median of the differences of neighbouring calls, `ratio` that of their ratios. `cpu_ms` is the proxy's
processor time per call; it depends little on the machine's other load. `host_share` is that time as a share of all
cores during a direct call: where no core is idle, throughput drops by this share.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import soundfile
from tritonclient.grpc import service_pb2, service_pb2_grpc

from benchmarks.gateway_cancel import bare_server, cancel
from heartvoice import keyed_random
from heartvoice.contracts.models import HEARTMULA, LOADED, MODELS, SONG, SPEAKER_ENCODER, SPEAKER_NETWORK
from heartvoice.contracts.network_names import NETWORKS
from heartvoice.errors import EngineError
from heartvoice.gateway.authentication import add_token
from heartvoice.loadtest import machine
from heartvoice.loadtest.harness import RESULTS, Run, Timing, alternate
from heartvoice.runtime.engines import default_threads
from heartvoice.runtime.repository import Repository
from heartvoice.server.options import ServerOptions
from heartvoice.server.server import EmbeddedServer, free_port

DIRECT, GATEWAY, HAPROXY = "direct", "gateway", "haproxy"
LIMIT_S = 12.0
"""No new round of a case starts after this."""
SETTLE_S = 0.3
"""Waiting time after which a proxy's later work, such as the access log, is finished and counted."""
CALLERS = 4
"""Concurrent clients of the throughput cases."""
N_SONGS = 8
REFUSED_BYTES = 50_000_000
"""Body that the server rejects on arrival, so that only the transport is measured."""


@dataclass(frozen=True)
class Route:
    """One route to the server: direct or through a proxy."""

    stub: Any
    metadata: Sequence[tuple[str, str]] = ()
    pid: int | None = None
    """Process id of the proxy."""

    @property
    def cpu_s(self) -> float:
        """Processor time of the proxy so far."""
        if self.pid is None:
            raise ValueError("pid: expected the process of a proxy, got none")
        # clock_getcpuclockid(3), which Python lacks: nanoseconds, where /proc counts in hundredths of a second.
        return time.clock_gettime(~self.pid << 3 | 2)

    def infer(self, message: Any) -> None:
        """Send a unary call."""
        self.stub.ModelInfer(message, metadata=self.metadata)

    def refused(self, message: Any) -> None:
        """Send a unary call that the model refuses."""
        try:
            self.infer(message)
        except grpc.RpcError as error:
            if "INVALID_ARG" in error.details():
                return
            raise
        raise AssertionError("the model did not refuse it")

    def live(self) -> None:
        """Send the cheapest request of a server."""
        self.stub.ServerLive(service_pb2.ServerLiveRequest(), metadata=self.metadata)

    def stream(self, message: Any) -> list[float]:
        """Return the seconds from the request to each response."""
        began = time.perf_counter()
        times = []
        for response in self.stub.ModelStreamInfer(iter([message]), metadata=self.metadata):
            times.append(time.perf_counter() - began)
            if response.error_message:
                raise EngineError(response.error_message)
        return times


def request(model: str, **inputs: Any) -> Any:
    """Build a request from a model's inputs."""
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
    """Encode noise as a stereo WAV file at 48 kHz."""
    audio = 0.1 * keyed_random.normal(1, "gateway", 0, (round(seconds * 48_000), 2))
    file = io.BytesIO()
    soundfile.write(file, np.clip(audio, -1, 1), 48_000, format="WAV", subtype="PCM_16")
    return file.getvalue()


@contextmanager
def gateway(upstream: str, folder: Path) -> Iterator[tuple[str, str, int]]:
    """Start a gateway without limits in a process; yield address, token and process id."""
    token = add_token(folder / "tokens", "benchmark")
    command = [
        sys.executable, "-m", "heartvoice.cli.main", "gateway", "--json", "--listen", f"127.0.0.1:{free_port()}",
        "--upstream", upstream, "--metrics-port", "0", "--tokens", str(folder / "tokens"), "--models", ",".join(LOADED),
        "--access-log", str(folder / "access.log"), "--requests-per-s", "1e9", "--bytes-per-minute", str(10**15),
        "--concurrent", "1000", "--drain-s", "1",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            if process.stdout is None:
                raise EngineError("gateway: expected its address on standard output, got no pipe")
            yield json.loads(process.stdout.readline())["grpc"], token, process.pid
        finally:
            process.terminate()


@contextmanager
def haproxy(upstream: str, folder: Path) -> Iterator[tuple[str, int]]:
    """Start HAProxy as a plain HTTP/2 proxy; yield address and process id."""
    address, config = f"127.0.0.1:{free_port()}", folder / "haproxy.cfg"
    config.write_text(
        "defaults\n mode http\n timeout connect 5s\n timeout client 1h\n timeout server 1h\n"
        f"listen grpc\n bind {address} proto h2\n server triton {upstream} proto h2\n"
    )
    with subprocess.Popen(["haproxy", "-db", "-q", "-f", str(config)], stderr=subprocess.DEVNULL) as process:
        try:
            yield address, process.pid
        finally:
            process.terminate()


@contextmanager
def open_routes(url: str) -> Iterator[dict[str, Route]]:
    """Yield all routes to a server."""
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    with ExitStack() as stack:

        def stub(address: str) -> Any:
            channel = stack.enter_context(grpc.insecure_channel(address, options))
            grpc.channel_ready_future(channel).result(30)
            return service_pb2_grpc.GRPCInferenceServiceStub(channel)

        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="heartvoice-gateway-")))
        found = {DIRECT: Route(stub(url))}
        address, token, pid = stack.enter_context(gateway(url, folder))
        found[GATEWAY] = Route(stub(address), (("authorization", f"Bearer {token}"),), pid)
        if shutil.which("haproxy"):
            address, pid = stack.enter_context(haproxy(url, folder))
            found[HAPROXY] = Route(stub(address), (), pid)
        yield found


def added_ms(through: Timing, straight: Timing) -> float:
    """Median of the differences of neighbouring calls."""
    return float(np.median(np.subtract(through.seconds, straight.seconds))) * 1e3


def add(run: Run, case: str, timings: Mapping[str, Timing], facts: Mapping[str, Mapping[str, float]]) -> None:
    """Add a row per route: direct, and through each proxy with its added time."""
    straight = timings[DIRECT]
    run.add(case, DIRECT, straight)
    for name, timing in timings.items():
        if name != DIRECT:
            run.add(case, name, timing, baseline=straight, added_ms=added_ms(timing, straight), **facts.get(name, {}))
    run.save()


def calls(
    run: Run,
    case: str,
    routes: Mapping[str, Route],
    call: Callable[[Route], object],
    n: int,
    each: int = 1,
    callers: int = 1,
    limit_s: float = LIMIT_S,
) -> None:
    """Time calls alternately; one timed call is `each` requests of several concurrent clients."""
    proxies = {name: route for name, route in routes.items() if route.pid is not None}
    before, warmup = {name: route.cpu_s for name, route in proxies.items()}, max(1, min(5, n // 20))
    variants = {name: partial(call, route) for name, route in routes.items()}
    timings = alternate(variants, n=n, warmup=warmup, limit_s=limit_s)
    time.sleep(SETTLE_S)
    facts = {}
    for name, route in proxies.items():
        rounds = len(timings[name].seconds) + warmup
        facts[name] = {"cpu_ms": (route.cpu_s - before[name]) * 1e3 / rounds / each}
        if callers > 1:
            facts[name]["host_share"] = (
                facts[name]["cpu_ms"] * each / (timings[DIRECT].median * 1e3 * machine.n_cores())
            )
    add(run, case, timings, facts)


def batch(pool: ThreadPoolExecutor, message: Any, count: int, route: Route) -> None:
    """Send many calls from several concurrent clients."""
    list(pool.map(lambda _: route.infer(message), range(count)))


def songs(pool: ThreadPoolExecutor, message: Any, count: int, route: Route) -> None:
    """Receive many streams by several concurrent clients."""
    list(pool.map(lambda _: route.stream(message), range(count)))


def streams(run: Run, case: str, routes: Mapping[str, Route], message: Any, n: int) -> None:
    """Measure first response, mean gap between responses, and the whole stream."""
    seen: dict[str, list[list[float]]] = {name: [] for name in routes}

    def one(name: str) -> None:
        seen[name].append(routes[name].stream(message))

    alternate({name: partial(one, name) for name in routes}, n=n, warmup=1, limit_s=LIMIT_S)
    kept = {name: times[1:] for name, times in seen.items()}
    parts: dict[str, Callable[[list[float]], float]] = {
        "first response": lambda times: times[0],
        "gap between responses": lambda times: (times[-1] - times[0]) / max(len(times) - 1, 1),
        "whole stream": lambda times: times[-1],
    }
    for name, part in parts.items():
        timings = {route: Timing(tuple(map(part, times))) for route, times in kept.items()}
        add(run, f"{case}: {name}", timings, {GATEWAY: {"responses": len(kept[GATEWAY][0])}})


def cancellations(run: Run, n: int) -> None:
    """Measure the time until the server notices that its client has left."""
    message = request(SONG.name, lyrics=b"la")
    with bare_server() as (address, endings), open_routes(address) as routes:

        def once(route: Route) -> float:
            return cancel(lambda: route.stub.ModelStreamInfer(iter([message]), metadata=route.metadata), endings)

        for route in routes.values():
            once(route)  # warm up
        rounds = [{name: once(route) for name, route in routes.items()} for _ in range(n)]
    add(run, "a stream is cancelled", {name: Timing(tuple(each[name] for each in rounds)) for name in rounds[0]}, {})


def measure(run: Run, routes: Mapping[str, Route], n: int) -> None:
    """Measure all cases, cheapest first."""
    few, several = max(n // 20, 1), max(n // 10, 1)
    small = request(SPEAKER_NETWORK.name, features=np.zeros((1, 16, 40)))
    reference = request(SPEAKER_ENCODER.name, file=recording(3.0))
    length: dict[str, Any] = {"duration_s": [20.0], "min_duration_s": [20.0], "codec_window": [93], "codec_steps": [1]}
    song = request(SONG.name, lyrics=b"la", events=[True], **length)
    codes = request(HEARTMULA.name, lyrics=b"la", duration_s=[4.0], min_duration_s=[4.0], events=[True])
    calls(run, "ServerLive, one caller", routes, Route.live, n)
    calls(run, "small unary (speaker_network), one caller", routes, lambda route: route.infer(small), n)
    calls(run, "unary (speaker_encoder, 3 s), one caller", routes, lambda route: route.infer(reference), several)
    with ThreadPoolExecutor(CALLERS) as pool:
        for name, message, count in (("speaker_network", small, 100), ("speaker_encoder, 3 s", reference, 12)):
            case = f"{count} calls of {CALLERS} callers ({name})"
            calls(run, case, routes, partial(batch, pool, message, count), several, count, CALLERS)
        calls(run, f"{N_SONGS} songs of {CALLERS} callers (20 s)", routes, partial(songs, pool, song, N_SONGS), few,
              N_SONGS, CALLERS, limit_s=5 * LIMIT_S)  # fmt: skip
    streams(run, "codes (heartmula, 4 s)", routes, codes, several)
    streams(run, "song (20 s)", routes, song, few)
    body = request(SPEAKER_ENCODER.name, file=bytes(REFUSED_BYTES))
    calls(run, f"{REFUSED_BYTES // 10**6} MB that are refused", routes, lambda route: route.refused(body), few)
    large = request(SPEAKER_ENCODER.name, file=recording(300.0))
    calls(run, "58 MB (speaker_encoder, 300 s)", routes, lambda route: route.infer(large), few)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="benchmarks.gateway", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--preset", default="tiny", help="preset of build/repository")
    parser.add_argument("--repository", type=Path, help="repository to use instead of build/repository/PRESET")
    parser.add_argument("--n", type=int, default=400, help="maximum rounds of the cheapest case")
    parser.add_argument("--quick", action="store_true", help="few rounds")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result")
    args = parser.parse_args(arguments)
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    repository = Repository(args.repository or Path("build/repository") / args.preset)
    run = Run("gateway", repository.preset.name, str(repository.index["precision"]), default_threads(),
              results=args.results, about=repository.about(*NETWORKS) | {"callers": CALLERS})  # fmt: skip
    served = ServerOptions(repository.root, free_port(), free_port())
    n = 20 if args.quick else args.n
    cancellations(run, max(n // 2, 1))
    with EmbeddedServer(served) as server, open_routes(server.url) as routes:
        measure(run, routes, n)
    run.finish(json_line=False)


if __name__ == "__main__":
    main()
