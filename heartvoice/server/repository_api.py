"""Triton's model repository API, which needs the key of the run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from heartvoice.server.channel import open_channel
from heartvoice.server.command_line import ADMIN_HEADER

POLL_S = 0.2
LOAD, UNLOAD = "RepositoryModelLoad", "RepositoryModelUnload"


class RepositoryApi:
    """Loads and unloads models of a running server."""

    def __init__(self, url: str, secret: str) -> None:
        self._url, self._metadata = url, ((ADMIN_HEADER, secret),)

    def call(self, method: str, model: str, timeout_s: float, poll: Callable[[], None] = lambda: None) -> None:
        """Make one call, and wait for its end.

        Args:
            method: `LOAD` or `UNLOAD`.
            model: its name.
            timeout_s: longest wait.
            poll: called every `POLL_S` while it waits.

        Raises:
            grpc.RpcError: the call failed, or was too late.
        """
        with open_channel(self._url) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            request = getattr(service_pb2, f"{method}Request")(model_name=model)
            call = getattr(stub, method).future(request, metadata=self._metadata, timeout=timeout_s)
            while True:
                with contextlib.suppress(grpc.FutureTimeoutError):
                    call.result(timeout=POLL_S)
                    return
                poll()
