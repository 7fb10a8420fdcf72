"""Finds out whether a running server answers."""

from __future__ import annotations

import time

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from heartvoice.server.channel import open_channel

PROBE_S = 2.0
"""Seconds between two questions to the server."""


class ServerProbe:
    """Asks the server from time to time whether it is live."""

    def __init__(self, url: str, hang_s: float) -> None:
        self._channel = open_channel(url)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._hang_s, self._asked = hang_s, time.monotonic()

    def hung(self) -> bool:
        """Return whether it left a question open for `hang_s`. Asks at most every `PROBE_S`, and waits."""
        if time.monotonic() - self._asked < PROBE_S:
            return False
        try:
            self._stub.ServerLive(service_pb2.ServerLiveRequest(), timeout=self._hang_s)
        except grpc.RpcError as error:
            return bool(error.code() is grpc.StatusCode.DEADLINE_EXCEEDED)
        finally:
            self._asked = time.monotonic()
        return False

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()
