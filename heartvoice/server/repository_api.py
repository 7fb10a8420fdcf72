"""Triton's model repository API, which needs the key of the run."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from heartvoice.server.channel import open_channel
from heartvoice.server.command_line import ADMIN_HEADER

POLL_S = 0.2
INDEX_S = 2.0
"""Seconds between two looks at the states of all models."""
_UNLOADED = frozenset({"UNLOADING", "UNAVAILABLE"})
LOAD, UNLOAD = "RepositoryModelLoad", "RepositoryModelUnload"


class RepositoryApi:
    """Loads and unloads models of a running server."""

    def __init__(self, url: str, secret: str) -> None:
        self._url, self._metadata = url, ((ADMIN_HEADER, secret),)
        self._looked = time.monotonic()

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

    def unloaded(self, models: Sequence[str]) -> list[str]:
        """Return which of the models are unloaded or are being unloaded; looks every `INDEX_S`, and else returns none.

        A server that does not answer is another's business: nothing is unloaded then.
        """
        if time.monotonic() - self._looked < INDEX_S:
            return []
        self._looked = time.monotonic()
        with open_channel(self._url) as channel, contextlib.suppress(grpc.RpcError):
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            index = stub.RepositoryIndex(service_pb2.RepositoryIndexRequest(), metadata=self._metadata, timeout=INDEX_S)
            return [model.name for model in index.models if model.name in models and model.state in _UNLOADED]
        return []
