"""Checks before a server is started: its files, its ports and its watermark's key."""

from __future__ import annotations

from collections.abc import Sequence

from heartvoice.contracts.models import LOADED
from heartvoice.errors import EngineError
from heartvoice.runtime.repository import Repository
from heartvoice.server.options import ServerOptions
from heartvoice.server.ports import check_port, check_socket
from heartvoice.watermark.keys import read_key


def check_graphs(repository: Repository, models: Sequence[str]) -> None:
    """Check that every model has its configuration and every graph its manifest.

    Raises:
        EngineError: one is missing or does not fit.
    """
    for name in models:
        if name in LOADED and not (repository.root / name / "config.pbtxt").is_file():
            raise EngineError(f"{name}: {repository.root / name}/config.pbtxt is missing; export again")
    for name in (m.name for m in repository.models.values() if m.backend == "onnxruntime"):
        repository.graph(name)


def check_options(options: ServerOptions) -> None:
    """Check that the server's ports, or its socket, are free, and that the watermark's key can be read if there is one.

    Raises:
        SetupError: a port is taken.
        InvalidRequestError: the key cannot be read, or is none.
    """
    if options.watermark_key is not None:
        read_key(options.watermark_key)
    if options.on_socket:
        check_socket(options.address, options.grpc_port)
    else:
        check_port("--grpc-port", options.grpc_port, options.address)
    check_port("--metrics-port", options.metrics_port, options.metrics_address)
