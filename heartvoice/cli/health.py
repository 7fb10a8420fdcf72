"""The command `heartvoice health`: a health check with an exit code, for containers and scripts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import grpc
import typer
from tritonclient.grpc import service_pb2, service_pb2_grpc

from heartvoice.client.connection import READY_TIMEOUT_S, Connection
from heartvoice.client.connection_errors import connection_error
from heartvoice.client.messages import DEFAULT_URL
from heartvoice.contracts.about import ABOUT, EXTENSION
from heartvoice.errors import InvalidRequestError, ModelUnavailableError

CHECK = "/grpc.health.v1.Health/Check"
_SERVING = b"\x08\x01"
"""HealthCheckResponse{status: SERVING}."""
_LOCKED = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)


def health(
    url: Annotated[str, typer.Option(help="Server or gateway, host:port.")] = DEFAULT_URL,
    live: Annotated[
        bool, typer.Option("--live", help="Ask only whether its process answers: for a probe that restarts it.")
    ] = False,
    model: Annotated[str, typer.Option(help="Ask for this model, for example song.")] = "",
    tls: Annotated[bool, typer.Option("--tls", help="Encrypt, with the system's certificate authorities.")] = False,
    root_certificates: Annotated[
        Path | None, typer.Option(metavar="PEM", help="Authorities to trust instead; implies --tls.")
    ] = None,
    private_key: Annotated[Path | None, typer.Option(metavar="PEM", help="Your key, for mutual TLS.")] = None,
    certificate_chain: Annotated[Path | None, typer.Option(metavar="PEM", help="Your certificate, likewise.")] = None,
    server_name: Annotated[
        str, typer.Option(help="Name in the server's certificate, where it is not that of the URL.")
    ] = "",
    timeout: Annotated[float, typer.Option(help="Seconds to wait.", min=0.1)] = READY_TIMEOUT_S,
) -> None:
    """Ask whether a server takes jobs, by gRPC's health protocol: exit 0 if so, 3 if not.

    Ready means that it takes jobs: it is loaded, and not being stopped. While one model's process is replaced the
    server stays ready, and --model NAME is not. A gateway is ready when the server behind it is; with --live it answers
    for itself.
    """
    if live and model:
        raise InvalidRequestError("--live, --model: expected one of them, got both")
    connection = Connection(
        url, tls=tls, root_certificates=root_certificates, private_key=private_key, certificate_chain=certificate_chain
    )
    options: list[tuple[str, Any]] = list(connection.options)
    if server_name:
        options.append(("grpc.ssl_target_name_override", server_name))
    credentials = connection.credentials
    channel = (
        grpc.insecure_channel(url, options) if credentials is None else grpc.secure_channel(url, credentials, options)
    )
    with channel:
        try:
            if not (_live(channel, timeout) if live else _ready(channel, model, timeout)):
                raise ModelUnavailableError(f"{url}: {model or 'the server'} is not ready")
        except grpc.RpcError as error:
            status, details = error.code().name, error.details() or ""
            unconnected = connection_error(url, details, secure=connection.secure)
            raise unconnected or ModelUnavailableError(f"{url}: no answer: {status}: {details}") from error
    typer.echo("live" if live else "ready")


def _live(channel: Any, timeout_s: float) -> bool:
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    return bool(stub.ServerLive(service_pb2.ServerLiveRequest(), timeout=timeout_s).live)


def _ready(channel: Any, model: str, timeout_s: float) -> bool:
    """Ask by the health protocol, and a server without a gateway by its models: Triton knows no service names."""
    name = model.encode()
    if len(name) > 127:
        raise InvalidRequestError(f"--model: expected at most 127 bytes, got {len(name)}")
    request = b"\x0a" + bytes([len(name)]) + name if name else b""
    if channel.unary_unary(CHECK)(request, timeout=timeout_s) != _SERVING:
        return False
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    try:
        about = stub.ServerMetadata(service_pb2.ServerMetadataRequest(), timeout=timeout_s)
        if any(extension.startswith(EXTENSION) for extension in about.extensions):
            return True  # a gateway, whose health covers all this
        needed = [name for name in (ABOUT if about.name == ABOUT else "", model) if name]
        return all(
            stub.ModelReady(service_pb2.ModelReadyRequest(name=each), timeout=timeout_s).ready for each in needed
        )
    except grpc.RpcError as error:
        if error.code() in _LOCKED:  # likewise; its health needs no token, the rest does
            return True
        raise
