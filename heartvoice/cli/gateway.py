"""`heartvoice gateway`: what may stand between a server and its callers. Light to import."""

from __future__ import annotations

import asyncio
import json
import logging
import logging.handlers
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from heartvoice.cli.optional_dependencies import require
from heartvoice.gateway.options import PUBLIC_MODELS, GatewayOptions
from heartvoice.gateway.rate_limits import Limits

if TYPE_CHECKING:
    from heartvoice.gateway.server import Gateway

app = typer.Typer(name="gateway", add_completion=False)
_CALLERS, _LIMITS = "Callers", "Limits of each caller"
_DEFAULT, _EACH = GatewayOptions(), Limits()


@app.callback(invoke_without_command=True)
def gateway(
    ctx: typer.Context,
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where callers connect.")] = _DEFAULT.listen,
    upstream: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="The server, as `heartvoice serve` names it.")
    ] = _DEFAULT.upstream,
    models: Annotated[
        str,
        typer.Option(metavar="NAME,...", help="Models that callers may reach. Default: all but the native graphs."),
    ] = "",
    metrics_port: Annotated[
        int, typer.Option(help="Port for Prometheus, on loopback only; 0 for none.")
    ] = _DEFAULT.metrics_port,
    access_log: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A JSON line for each call; default standard error.")
    ] = None,
    drain_s: Annotated[
        float, typer.Option(help="How long calls may take to finish at a stop.", min=0)
    ] = _DEFAULT.drain_s,
    connections: Annotated[
        int, typer.Option(help="Most connections at once, of all callers.", min=1)
    ] = _DEFAULT.connections,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line when ready, for machines.")] = False,
    certificate: Annotated[
        Path | None, typer.Option(metavar="PEM", help="The gateway's certificate.", rich_help_panel=_CALLERS)
    ] = None,
    private_key: Annotated[Path | None, typer.Option(metavar="PEM", help="Its key.", rich_help_panel=_CALLERS)] = None,
    tokens: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Callers send a bearer token; FILE has names and hashes; see `gateway token --help`.",
            rich_help_panel=_CALLERS,
        ),
    ] = None,
    client_roots: Annotated[
        Path | None,
        typer.Option(
            metavar="PEM",
            help="Callers show a certificate that these roots have signed; without --tokens it also names them.",
            rich_help_panel=_CALLERS,
        ),
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure", help="Allow plain text, or callers without a name, beyond loopback.", rich_help_panel=_CALLERS
        ),
    ] = False,
    requests_per_s: Annotated[
        float, typer.Option(help="In the long run; twice as many at once.", rich_help_panel=_LIMITS)
    ] = _EACH.requests_per_s,
    bytes_per_minute: Annotated[
        int, typer.Option(help="Sent by the caller, in the long run.", rich_help_panel=_LIMITS)
    ] = _EACH.bytes_per_minute,
    concurrent: Annotated[
        int, typer.Option(help="Calls and streams at once.", rich_help_panel=_LIMITS)
    ] = _EACH.concurrent,
    requests_per_stream: Annotated[
        int, typer.Option(help="Requests in one stream.", rich_help_panel=_LIMITS)
    ] = _EACH.requests_per_stream,
    max_message_bytes: Annotated[
        int, typer.Option(help="Of one request.", rich_help_panel=_LIMITS)
    ] = _EACH.max_message_bytes,
    receive_s: Annotated[
        float, typer.Option(help="Seconds until a call's first request has arrived.", rich_help_panel=_LIMITS)
    ] = _EACH.receive_s,
    stalled_s: Annotated[
        float, typer.Option(help="Seconds that a response may be left unread.", rich_help_panel=_LIMITS)
    ] = _EACH.stalled_s,
    call_s: Annotated[float, typer.Option(help="Seconds of a whole call.", rich_help_panel=_LIMITS)] = _EACH.call_s,
) -> None:
    """Stand between a server and callers that are not trusted, until stopped.

    Checks every request against the models' contracts, knows callers by token or certificate, limits each of them,
    and passes streams, deadlines and cancellation on. Nothing else of the server can be reached. For example:

    heartvoice gateway token alice --tokens tokens.txt -o alice.token

    heartvoice gateway --listen 0.0.0.0:8443 --certificate host.pem --private-key host.key --tokens tokens.txt

    SIGTERM or Ctrl-C lets calls finish; a second one ends them. Tokens and certificates are read again when their
    files change.
    """
    if ctx.invoked_subcommand is not None:
        return
    require("gateway", "prometheus_client")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # read on import; what matters is in our own log
    from heartvoice.gateway.server import run

    limits = Limits(
        requests_per_s, bytes_per_minute, concurrent, requests_per_stream, max_message_bytes, receive_s, stalled_s,
        call_s,
    )  # fmt: skip
    names = tuple(name.strip() for name in models.split(",")) if models else PUBLIC_MODELS
    options = GatewayOptions(
        listen, upstream, metrics_port, certificate, private_key, client_roots, tokens, names, limits, connections,
        insecure, drain_s,
    )  # fmt: skip
    _log_to(access_log)
    asyncio.run(run(options, lambda made: _announce(made, as_json)))


@app.command()
def token(
    name: Annotated[str, typer.Argument(help="Who shall use it: in logs and metrics.")],
    tokens: Annotated[Path, typer.Option(metavar="FILE", help="The gateway's file; made if need be.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="Write the token there, for your eyes only; else print it."
        ),
    ] = None,
) -> None:
    """Make a token for a caller: its hash goes into the gateway's file, and the token itself is given out, once.

    For example: heartvoice gateway token alice --tokens tokens.txt -o alice.token

    A running gateway notices. A caller may have several tokens; to end one, remove its line.
    """
    from heartvoice.gateway.authentication import add_token

    if output is None:
        typer.echo(add_token(tokens, name))
        return
    # Before the hash is added: an existing file may be another's, and is kept.
    handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(add_token(tokens, name) + "\n")


def _log_to(access: Path | None) -> None:
    """Our own log and the access log, on standard error; the latter into a file if there is one."""
    plain = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(plain)
    root = logging.getLogger("heartvoice")
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    if access is not None:
        lines = logging.getLogger("heartvoice.gateway.access")
        file = logging.handlers.WatchedFileHandler(access, encoding="utf-8")  # goes along with logrotate
        file.setFormatter(logging.Formatter("%(message)s"))
        lines.addHandler(file)
        lines.propagate = False


def _announce(made: Gateway, as_json: bool) -> None:
    options = made.options
    host = options.listen.rpartition(":")[0]
    address = f"{host}:{made.port}" if host else options.listen
    callers = "tokens" if options.tokens else "certificates" if options.client_roots else "anyone"
    facts = {
        "ready": True, "grpc": address, "pid": os.getpid(), "upstream": options.upstream,
        "tls": options.certificate is not None, "callers": callers, "models": list(options.models),
    }  # fmt: skip
    if as_json:
        print(json.dumps(facts), flush=True)
        return
    way = "TLS" if options.certificate else "plain text"
    typer.echo(f"ready: {address} ({way}, callers by {callers}) in front of {options.upstream}")
    sys.stdout.flush()
