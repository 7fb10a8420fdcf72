"""The supervisor's own connections to its server."""

from __future__ import annotations

from typing import Any

import grpc

_OPTIONS = (
    # Of its own: connections of one process to one address share what gRPC knows of it, waits after failures included.
    ("grpc.use_local_subchannel_pool", 1),
    # gRPC's default grows to two minutes while a server is being started.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2000),  # also the longest wait for a connection
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.enable_http_proxy", 0),
)


def open_channel(url: str) -> Any:
    """Return a channel that tries again at once what was refused before."""
    return grpc.insecure_channel(url, _OPTIONS)
