"""The command `heartvoice bench`: measures a server under load."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from heartvoice.cli.options import (
    CertificateChainOption,
    PrivateKeyOption,
    RootCertificatesOption,
    TlsOption,
    TokenFileOption,
)
from heartvoice.errors import InvalidRequestError
from heartvoice.optional_dependencies import require

if TYPE_CHECKING:
    from heartvoice.config.presets import Preset
    from heartvoice.loadtest.harness import Run
    from heartvoice.loadtest.perf import PerfAnalyzer
    from heartvoice.loadtest.target import Security, Target
    from heartvoice.loadtest.view import Step

HEADERS_VARIABLE = "HEARTVOICE_HEADERS"


class Scenario(str, Enum):
    """A kind of measurement."""

    stages = "stages"
    streams = "streams"
    saturation = "saturation"
    length = "length"
    shared = "shared"


@dataclass(frozen=True)
class Plan:
    """Size of the measurements."""

    concurrency: Sequence[int]
    seconds: float
    """Approximate seconds of each point."""
    most: int
    """Largest number of requests of each point."""
    song_s: float = 30.0
    """Length of streamed songs in seconds."""
    lengths: Sequence[float] = (10.0, 30.0, 60.0, 120.0, 240.0)
    cover_lengths: Sequence[float] = (10.0, 30.0, 60.0)
    shares: Sequence[float] = (0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.6, 2.0)
    """Offered songs as shares of the server's capacity."""
    shared_s: float = 60.0
    rounds: int = 2


QUICK = Plan(
    concurrency=(2,), seconds=0.5, most=4, song_s=2.0, lengths=(2.0, 4.0), cover_lengths=(2.0,), shares=(0.5, 4.0),
    shared_s=6.0, rounds=1,
)  # fmt: skip
"""The smallest plan."""


def bench(
    repository: Annotated[
        Path, typer.Option(help="Start a server over this exported repository.", show_default=True)
    ] = Path("build/repository/tiny"),
    url: Annotated[str, typer.Option(help="Take a running server at HOST:PORT instead.")] = "",
    metrics_url: Annotated[str, typer.Option(help="Its /metrics, for queue times.")] = "",
    preset: Annotated[str, typer.Option(help="Its preset, for the sizes of graphs.")] = "tiny",
    headers: Annotated[
        Path | None,
        typer.Option(help=f"File with its headers, `name: value` a line; or set {HEADERS_VARIABLE} to such lines."),
    ] = None,
    expose_headers: Annotated[
        bool,
        typer.Option(
            "--expose-headers",
            help="Hand them to perf_analyzer, too: on its command line, where every user of this machine can read "
            "them. Without it, a server with headers is measured by our own client alone.",
        ),
    ] = False,
    tls: TlsOption = False,
    root_certificates: RootCertificatesOption = None,
    private_key: PrivateKeyOption = None,
    certificate_chain: CertificateChainOption = None,
    token_file: TokenFileOption = None,
    only: Annotated[list[Scenario] | None, typer.Option(help="Measure this alone; may be repeated.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="Of the stages, only this; may be repeated.")] = None,
    concurrency: Annotated[str, typer.Option(help="How many at once, with commas.")] = "1,2,4,8",
    seconds: Annotated[
        float, typer.Option(help="Time of each point, about; four times that for saturation.", min=0.1)
    ] = 4.0,
    requests: Annotated[int, typer.Option(help="Most requests of a point.", min=1)] = 100,
    quick: Annotated[bool, typer.Option("--quick", help="As little as possible: does it work?")] = False,
    results: Annotated[
        Path | None, typer.Option(help="Where the JSON goes; benchmarks/results of a checkout, or ./benchmark-results.")
    ] = None,
    plots: Annotated[Path | None, typer.Option(help="Draw PNG files here, with the extra `evaluate`.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result's JSON line instead of its path.")] = False,
) -> None:
    """Put a server under load and say how it bears it: per stage, streamed, and to saturation and beyond.

    For example: heartvoice bench --plots plots, which starts its own server; about 15 minutes on two cores.

    `stages`: latency and throughput of every stage and job at 1 to 8 at once, by perf_analyzer, fetched from PyPI.
    `streams`: first audio, gaps, and the stops of a player at 48 kHz, by our own client.
    `saturation`: songs that come at random, up to twice what the server can make; where the knee is, who is refused.
    `length`: what a second of song costs, in songs of 10 to 240 s.
    `shared`: large inputs by shared memory against plain gRPC.

    Every point is saved at once; Ctrl-C stops everything and keeps what was measured.
    """
    check_installed(plots=plots is not None)
    plan = QUICK if quick else Plan(read_concurrency(concurrency), seconds, requests)
    chosen = list(only or Scenario)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from heartvoice.config.presets import PRESETS
    from heartvoice.loadtest.harness import RESULTS, Run
    from heartvoice.loadtest.target import Target, own_server, running_server
    from heartvoice.runtime.engines import default_threads
    from heartvoice.runtime.repository import Repository

    secret = read_secret(headers)
    security: Security = {
        "tls": tls, "root_certificates": root_certificates, "private_key": private_key,
        "certificate_chain": certificate_chain, "token_file": token_file,
    }  # fmt: skip
    if not url and any(security.values()):
        raise InvalidRequestError("--tls and --token-file: expected --url, whose server they are for; got none")
    if preset not in PRESETS:
        raise InvalidRequestError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    served = None if url else Repository(repository)
    sizes = PRESETS[preset] if served is None else served.preset
    precision = "unknown" if served is None else str(served.index["precision"])
    name = "load-quick" if quick else "load"
    run = Run(name, sizes.name, precision, default_threads(), results=results or RESULTS)
    interrupted = False
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does
    with ExitStack() as stack:
        try:
            target = stack.enter_context(
                own_server(repository)
                if served is not None
                else running_server(Target(url, metrics_url or None, None, secret, expose_headers, security))
            )
            measure(run, target, sizes, plan, chosen, model, stack)
        except KeyboardInterrupt:
            interrupted = True
    _finish(run, interrupted, as_json)
    if plots is not None:
        from heartvoice.loadtest.plots import draw

        for path in draw(run.result(), plots):
            typer.echo(f"plot: {path}", err=True)
    if interrupted:
        typer.echo(f"interrupted: what was measured is in {run.path}", err=True)
        raise typer.Exit(130)


def measure(
    run: Run,
    target: Target,
    sizes: Preset,
    plan: Plan,
    chosen: Sequence[Scenario],
    models: Sequence[str] | None,
    stack: ExitStack,
) -> None:
    """Run all measurements; each point is saved as soon as it is measured."""
    from heartvoice.loadtest.perf import perf_analyzer
    from heartvoice.loadtest.view import view

    tool = None
    if {Scenario.stages, Scenario.shared} & set(chosen):
        if target.metadata and not target.exposed:
            typer.echo(
                "no perf_analyzer: it would show the headers on its command line; see --expose-headers", err=True
            )
        else:
            tool = stack.enter_context(perf_analyzer())
    run.about = {
        "weights": "those of the server", "recording_s": 10.0, "flow_steps": 4,
        "tool": tool.version if tool else None, "url": "own server" if target.memory else target.url,
    }  # fmt: skip
    questions = ask(run, target, sizes, plan, chosen, models, tool)
    with view(Console(stderr=True), n_points(plan, chosen, models)) as shown:
        for question in questions:
            for step in question:
                shown.show(step)
    if target.memory is not None:
        add_memory(run, target)


def ask(
    run: Run, target: Target, sizes: Preset, plan: Plan, chosen: Sequence[Scenario], models: Sequence[str] | None,
    tool: PerfAnalyzer | None,
) -> Iterator[Iterator[Step]]:  # fmt: skip
    """Yield the chosen measurements in order; each one measures during its iteration."""
    from heartvoice.contracts.constants import CODES_PER_UNIT
    from heartvoice.loadtest import length as load_length
    from heartvoice.loadtest import perf as load_perf
    from heartvoice.loadtest import saturation as load_saturation
    from heartvoice.loadtest import shared as load_shared
    from heartvoice.loadtest import streams as load_streams

    loads = wanted_loads(sizes, models)
    graph = next(load for load in wanted_loads(sizes, None) if load.name == sizes.separator.engine)
    points: dict[Scenario, Callable[[], Iterator[Step]]] = {
        Scenario.streams: lambda: load_streams.measure_streams(
            run, target, load_streams.jobs(plan.song_s), concurrency=plan.concurrency, seconds=plan.seconds,
            most=plan.most,
        ),
        Scenario.saturation: lambda: load_saturation.measure_saturation(
            run, target, load_streams.song(min(plan.song_s, 8.0), codec_window=CODES_PER_UNIT),
            seconds=4 * plan.seconds, shares=plan.shares, most=plan.most,
        ),
        Scenario.length: lambda: load_length.measure_length(
            run, target, lengths=plan.lengths, cover_lengths=plan.cover_lengths, rounds=plan.rounds
        ),
        Scenario.shared: lambda: load_shared.measure_shared(
            run, target, tool, graph, seconds=plan.shared_s, rounds=plan.rounds, n=min(20, plan.most)
        ),
    }  # fmt: skip
    if tool is not None:
        points[Scenario.stages] = lambda: load_perf.measure_stages(
            run, target, tool, loads, concurrency=plan.concurrency, seconds=plan.seconds, most=plan.most
        )
    for question in chosen:
        if question in points:
            yield points[question]()


def wanted_loads(sizes: Preset, models: Sequence[str] | None) -> list[Any]:
    """Return the loads of these models, or all loads.

    Raises:
        InvalidRequestError: there is no such load.
    """
    from heartvoice.loadtest.work import loads

    known = {load.name: load for load in loads(sizes)}
    for name in models or ():
        if name not in known:
            raise InvalidRequestError(f"model: expected one of {', '.join(known)}, got {name!r}")
    return [load for name, load in known.items() if not models or name in models]


def add_memory(run: Run, target: Target) -> None:
    """Add a row for the server and each stub: initial and peak resident memory."""
    assert target.memory is not None
    target.memory.look()
    for name, size in sorted(target.memory.peak.items(), key=lambda item: -item[1]):
        first = target.memory.first[name]
        run.add("memory", name, question="memory", first_mb=first / 1e6, most_mb=size / 1e6)
    total = sum(target.memory.peak.values()) / 1e6
    run.add("memory", "all", question="memory", first_mb=sum(target.memory.first.values()) / 1e6, most_mb=total)


def _finish(run: Run, interrupted: bool, as_json: bool) -> None:
    if interrupted:
        from heartvoice.loadtest.harness import print_table

        run.save()
        print_table(run.result(complete=False))
        return
    run.finish(json_line=as_json)


def check_installed(*, plots: bool) -> None:
    """Check that the packages of a load test are installed.

    Raises:
        ModelUnavailableError: names the packages and the extra.
    """
    require("bench", "psutil")
    require("serve", "onnxruntime", "tokenizers", "jellyfish", "pytriton", "soxr")
    require("export", "torch", "onnx")
    if plots:
        require("evaluate", "matplotlib")


def read_concurrency(text: str) -> list[int]:
    """Parse numbers such as `1,2,4`.

    Raises:
        InvalidRequestError: an entry is no number, or is below 1.
    """
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = [0]
    if min(numbers) < 1:
        raise InvalidRequestError(f"concurrency: expected numbers from 1 on with commas, got {text!r}")
    return numbers


def read_secret(path: Path | None) -> list[tuple[str, str]]:
    """Read headers from the file or the environment, never from the command line."""
    from heartvoice.loadtest.target import read_headers

    if path is not None:
        return read_headers(path.read_text(encoding="utf-8"), str(path))
    return read_headers(os.environ.get(HEADERS_VARIABLE, ""), HEADERS_VARIABLE)


def n_points(plan: Plan, chosen: Sequence[Scenario], models: Sequence[str] | None) -> int:
    """Return the number of points, for the progress bar."""
    sizes = {
        Scenario.stages: len(plan.concurrency) * (len(models) if models else 11),
        Scenario.streams: 4 * len(plan.concurrency),
        Scenario.saturation: len(plan.shares),
        Scenario.length: plan.rounds * (len(plan.lengths) + len(plan.cover_lengths)),
        Scenario.shared: 3,
    }
    return sum(sizes[question] for question in chosen)
