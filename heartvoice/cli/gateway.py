"""The command `heartvoice gateway`: runs a proxy between a server and its callers. Light to import."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import logging.handlers
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from heartvoice.errors import InvalidRequestError
from heartvoice.gateway.options import PUBLIC_MODELS, GatewayOptions, Option, all_options, flag, make_options
from heartvoice.optional_dependencies import require

if TYPE_CHECKING:
    from heartvoice.gateway.server import Gateway

app = typer.Typer(name="gateway", add_completion=False)


def _parameter(option: Option) -> inspect.Parameter:
    """Return an option of the command; its value is None if it is not given."""
    shown, kind = option.shown, option.kind
    text: dict[str, Any] = {"help": shown.help, "metavar": shown.metavar, "rich_help_panel": shown.panel}
    if kind == tuple[str, ...]:
        kind, default = str, ""
    else:
        default = option.default
    if shown.minimum is not None:
        text |= {"min": shown.minimum, "max": shown.maximum}
    names = [flag(option.name)] if kind is bool else []
    annotated: Any = Annotated  # the type is only known at run time
    annotation = annotated[kind, typer.Option(*names, **text)]
    return inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _with_gateway_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add an option for each of `all_options` to a command, which takes them as keyword arguments."""
    own = inspect.signature(command, eval_str=True).parameters
    made = [_parameter(option) for option in all_options()]
    in_front = [parameter for parameter, option in zip(made, all_options(), strict=True) if option.shown.panel is None]
    behind = [parameter for parameter in made if parameter not in in_front]
    config, as_json = (own[name].replace(kind=inspect.Parameter.KEYWORD_ONLY) for name in ("config", "as_json"))
    parameters = [own["ctx"], config, *in_front, as_json, *behind]

    def run(ctx: typer.Context, **arguments: Any) -> None:
        command(ctx, **arguments)

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


@app.callback(invoke_without_command=True)
@_with_gateway_options
def gateway(
    ctx: typer.Context,
    config: Annotated[
        Path | None, typer.Option(metavar="TOML", help="File of these options; the command line wins over it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line when ready, for machines.")] = False,
    **arguments: Any,
) -> None:
    """Stand between a server and callers that are not trusted, until stopped.

    Checks every request against the models' contracts, knows callers by token or certificate, limits each of them,
    and passes streams, deadlines and cancellation on. Nothing else of the server can be reached. For example:

    heartvoice gateway token alice --tokens tokens.txt -o alice.token

    heartvoice gateway --listen 0.0.0.0:8443 --certificate host.pem --private-key host.key --tokens tokens.txt

    The same options in a file, with the names that they have here; deploy/gateway.toml is an example:

    heartvoice gateway --config gateway.toml

    SIGTERM or Ctrl-C lets calls finish; a second one ends them. Tokens and certificates are read again when their
    files change.
    """
    if ctx.invoked_subcommand is not None:
        return
    options = _options(ctx, config, arguments)
    require("gateway", "prometheus_client", "grpc_reflection")
    if options.registry is not None:
        require("trust", "cryptography")
    from heartvoice.gateway.server import run

    _log_to(options.access_log)
    asyncio.run(run(options, lambda made: _announce(made, as_json)))


def _options(ctx: typer.Context, config: Path | None, arguments: dict[str, Any]) -> GatewayOptions:
    """Merge defaults, file and command line; the command line takes precedence.

    Raises:
        InvalidRequestError: names the option, and the file if the value is from there.
    """
    given = {name: value for name, value in arguments.items() if _is_given(ctx, name)}
    if given.get("models"):
        given["models"] = tuple(name.strip() for name in given["models"].split(","))
    elif "models" in given:  # an empty text is the default, as without the option
        given["models"] = PUBLIC_MODELS
    if config is None:
        return make_options(given)
    from heartvoice.gateway.config_file import read_config

    stored = read_config(config)
    try:
        return make_options({**stored, **given})
    except InvalidRequestError as error:
        names, _, reason = str(error).partition(":")
        keys = [name.strip().removeprefix("--").replace("_", "-") for name in names.split(",")]
        if not any(key.replace("-", "_") in stored.keys() - given.keys() for key in keys):
            raise
        raise InvalidRequestError(f"{config}: {', '.join(keys)}:{reason}") from error


def _is_given(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


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
    # Before the hash is added, because an existing file may belong to another caller and is kept.
    handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(add_token(tokens, name) + "\n")


def _log_to(access: Path | None) -> None:
    """Send the log and the access log to standard error, or the access log to its file."""
    from heartvoice.log_format import formatter

    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter())
    root = logging.getLogger("heartvoice")
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    if access is not None:
        lines = logging.getLogger("heartvoice.gateway.access")
        file = logging.handlers.WatchedFileHandler(access, encoding="utf-8")  # compatible with logrotate
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
