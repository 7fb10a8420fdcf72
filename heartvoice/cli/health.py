"""The command `heartvoice health`: a health check with an exit code, for containers and scripts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import grpc
import typer

from heartvoice.client.connection import READY_TIMEOUT_S, Connection
from heartvoice.client.messages import DEFAULT_URL
from heartvoice.errors import ModelUnavailableError

CHECK = "/grpc.health.v1.Health/Check"
_SERVING = b"\x08\x01"
"""HealthCheckResponse{status: SERVING}; an empty request asks about the whole server."""


def health(
    url: Annotated[str, typer.Option(help="Server or gateway, host:port.")] = DEFAULT_URL,
    tls: Annotated[bool, typer.Option("--tls", help="Encrypt, with the system's certificate authorities.")] = False,
    root_certificates: Annotated[
        Path | None, typer.Option(metavar="PEM", help="Authorities to trust instead; implies --tls.")
    ] = None,
    server_name: Annotated[
        str, typer.Option(help="Name in the server's certificate, where it is not that of the URL.")
    ] = "",
    timeout: Annotated[float, typer.Option(help="Seconds to wait.", min=0.1)] = READY_TIMEOUT_S,
) -> None:
    """Ask whether a server is ready, by gRPC's health protocol: exit 0 if so, 3 if not.

    Ready means that every model is loaded. A gateway answers for the server behind it.
    """
    connection = Connection(url, tls=tls, root_certificates=root_certificates)
    options: list[tuple[str, Any]] = list(connection.options)
    if server_name:
        options.append(("grpc.ssl_target_name_override", server_name))
    credentials = connection.credentials
    channel = (
        grpc.insecure_channel(url, options) if credentials is None else grpc.secure_channel(url, credentials, options)
    )
    with channel:
        try:
            answer: bytes = channel.unary_unary(CHECK)(b"", timeout=timeout)
        except grpc.RpcError as error:
            raise ModelUnavailableError(f"{url}: no answer: {error.code().name}: {error.details()}") from error
    if answer != _SERVING:
        raise ModelUnavailableError(f"{url}: not ready")
    typer.echo("ready")
