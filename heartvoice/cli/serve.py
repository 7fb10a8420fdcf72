"""The commands `heartvoice serve` and `heartvoice doctor`. Light to import: the server's parts are loaded when run."""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from heartvoice.cli.signing import KeysChoice, ServerKeysOption, choose_keys
from heartvoice.contracts.constants import WATERMARK_KEY_VARIABLE

if TYPE_CHECKING:
    from heartvoice.runtime.repository import Repository as ModelRepository
    from heartvoice.server.server import EmbeddedServer

log = logging.getLogger(__name__)
DEFAULT_REPOSITORY = Path("build/repository/demo")


class StopMode(str, Enum):
    """Treatment of running songs at a stop."""

    cancel = "cancel"
    finish = "finish"


Repository = Annotated[Path, typer.Option(help="A repository made by `heartvoice export`.", show_default=True)]
GrpcPort = Annotated[int, typer.Option(help="Port for clients (KServe v2 gRPC), on loopback only.")]
MetricsPort = Annotated[int, typer.Option(help="Port for Prometheus, on loopback only.")]


def serve(
    repository: Repository = DEFAULT_REPOSITORY,
    server: Annotated[str, typer.Option(help="`embedded` (PyPI wheel), or the PATH of a tritonserver.")] = "embedded",
    grpc_port: GrpcPort = 8001,
    metrics_port: MetricsPort = 8002,
    config_name: Annotated[
        str,
        typer.Option(
            help="Variant of the models' configs: `cpu` runs native graphs through OpenVINO, `cpu_bf16` the "
            "separator in bf16 (half the time, an SNR of about 33 dB)."
        ),
    ] = "",
    on_stop: Annotated[
        StopMode, typer.Option(help="What SIGINT and SIGTERM do with songs in flight.")
    ] = StopMode.finish,
    drain_s: Annotated[float, typer.Option(help="With --on-stop finish: how long they may take.", min=0)] = 300.0,
    log_file: Annotated[Path | None, typer.Option(help="Append the server's log to this file.")] = None,
    hang_s: Annotated[
        float,
        typer.Option(help="A process without a sign of life for so long is killed, a model's started anew.", min=1),
    ] = 30.0,
    profile: Annotated[
        str, typer.Option(help="Machine to set the server up for: gb10 (docs/how-to/gpu.md says what and why).")
    ] = "",
    address: Annotated[
        str,
        typer.Option(
            help="Where to listen. `unix:/FOLDER/NAME` is for your own user alone, and the only safe way on a host "
            "with other users, who can read the server's keys in the process list. Beyond loopback only "
            "with --server PATH, and better a gateway."
        ),
    ] = "127.0.0.1",
    shared_memory: Annotated[
        bool,
        typer.Option(
            "--shared-memory",
            help="Let clients of your own user hand large inputs over by shared memory, `Client(shared_memory=True)`. "
            "Who has the key to that can read and change all that the server computes, and run code in it: your user, "
            "and on TCP every user of this host (see --address).",
        ),
    ] = False,
    keys: ServerKeysOption = None,
    watermark_key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            envvar=WATERMARK_KEY_VARIABLE,
            show_envvar=False,
            help="Mark the sound of all songs and covers with this key, `watermark.key` of `heartvoice keys init`, and "
            f"refuse references that carry its mark. Default: ${WATERMARK_KEY_VARIABLE}; without, nothing is marked.",
        ),
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="One JSON line when ready, for machines.")] = False,
) -> None:
    """Serve songs until stopped: start Triton, load the models, watch them.

    Prints a line when every model answers. A second SIGINT or SIGTERM cancels what is still in flight.
    """
    check_installed(embedded=server == "embedded")
    from heartvoice.runtime.repository import Repository as ModelRepository
    from heartvoice.server import profiles, triton_wheel
    from heartvoice.server.options import ServerOptions
    from heartvoice.server.server import EmbeddedServer

    signing = choose_keys(keys)
    files = None if server == "embedded" else triton_wheel.find_installed(Path(server))
    options = ServerOptions(
        repository, grpc_port, metrics_port, files, config_name, drain_s=drain_s, log_path=log_file, hang_s=hang_s,
        profile=profiles.find(profile, "--profile") if profile else None, address=address, shared_memory=shared_memory,
        signing_keys=signing.folder,
        watermark_key=watermark_key,
    )  # fmt: skip
    signals: list[int] = []
    asked = threading.Event()

    def on_signal(number: int, _frame: object) -> None:
        signals.append(number)
        asked.set()
        if len(signals) > 1 and triton.ready:
            triton.cancel_jobs()

    _log_to_stderr()
    triton = EmbeddedServer(options)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    triton.start(asked.is_set)
    try:
        _announce(triton, ModelRepository(repository), signing, json_output)
        while not asked.wait(0.2):
            if triton.poll() is not None:
                log.error("the server ended by itself with status %s", triton.poll())
                raise typer.Exit(1)
        log.info("stopping (%s jobs in flight: %d)", on_stop.value, triton.live_jobs())
    finally:
        triton.stop(cancel=on_stop is StopMode.cancel or len(signals) > 1)


def _log_to_stderr() -> None:
    """Send what the supervisor has to say to standard error, with the time."""
    from heartvoice.log_format import formatter

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter("%(levelname)s %(message)s"))
    room = logging.getLogger("heartvoice")
    room.addHandler(handler)
    room.setLevel(logging.INFO)


def check_installed(*, embedded: bool = True) -> None:
    """Check that the packages of serving are installed.

    Raises:
        ModelUnavailableError: names the packages and the extra.
    """
    from heartvoice.optional_dependencies import require

    require(
        "serve" if embedded else "gpu", "onnxruntime", "tokenizers", "jellyfish", *(["pytriton"] if embedded else [])
    )


def _announce(triton: EmbeddedServer, repository: ModelRepository, signing: KeysChoice, json_output: bool) -> None:
    from heartvoice.contracts.network_names import describe, noise
    from heartvoice.log_format import timestamp

    index = repository.index
    if json_output:
        ready = {
            "ready": True,
            "time": timestamp(),
            "grpc": triton.url,
            "metrics": triton.metrics_url,
            "pid": triton.pid,
            "preset": index["preset"],
            "weights": index["weights"],
            "models": list(triton.models),
            "signs": signing.folder is not None,
            "unsigned_because": signing.unsigned or None,
            "watermark": triton.options.watermark_key is not None,
        }
        print(json.dumps(ready), flush=True)
        return
    typer.echo(f"{timestamp()} ready: grpc {triton.url}, metrics {triton.metrics_url}, preset {index['preset']}")
    signs = f"are signed with the keys in {signing.folder}" if signing.folder else f"are not signed: {signing.unsigned}"
    typer.echo(f"{timestamp()} files of render {signs}")
    if triton.options.watermark_key is None:
        typer.echo(f"{timestamp()} songs are not watermarked: no --watermark-key")
    if repository.random_weights:
        real, made = describe(index["origins"], random=False), noise(index["origins"])
        typer.echo(
            f"{timestamp()} weights of {describe(index['origins'], random=True)} are random"
            + (f": {made} are noise" if made else "")
            + (f"; those of {real} are not" if real else "")
        )
    sys.stdout.flush()


def doctor(
    repository: Annotated[Path | None, typer.Option(help="Also check this repository.")] = None,
    target: Annotated[
        str, typer.Option(help="Check for serving on this kind of machine: gb10. Default: the embedded server.")
    ] = "",
    grpc_port: GrpcPort = 8001,
    metrics_port: MetricsPort = 8002,
    json_output: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Say what this machine lacks for serving, and how to get it. Exits with 1 if anything is missing."""
    from dataclasses import asdict

    from heartvoice.server import profiles
    from heartvoice.server.doctor import examine
    from heartvoice.server.doctor_target import examine_target

    ports = {"--grpc-port": grpc_port, "--metrics-port": metrics_port}
    if target:
        findings = list(examine_target(profiles.find(target, "--target"), repository, ports))
    else:
        findings = list(examine(repository, ports))
    if json_output:
        print(json.dumps([asdict(finding) for finding in findings]))
    else:
        for finding in findings:
            typer.echo(f"{'ok     ' if finding.ok else 'MISSING'}  {finding.name}: {finding.detail}")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)
