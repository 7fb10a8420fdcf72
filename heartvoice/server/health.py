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
        self._hang_s = hang_s
        self._asked = self._answered = time.monotonic()

    def hung(self) -> bool:
        """Return whether a living server has answered nothing for `hang_s`. Asks at most every `PROBE_S`, and waits."""
        if time.monotonic() - self._asked < PROBE_S:
            return False
        try:
            self._stub.ServerLive(service_pb2.ServerLiveRequest(), timeout=self._hang_s)
            self.restart()
        except grpc.RpcError as error:
            # One that is stopped takes no connection either, which ends before the question's own time.
            silent_s = time.monotonic() - self._answered
            return bool(error.code() is grpc.StatusCode.DEADLINE_EXCEEDED) or silent_s > self._hang_s
        finally:
            self._asked = time.monotonic()
        return False

    def restart(self) -> None:
        """Begin to count anew: the server has just shown that it works."""
        self._answered = time.monotonic()

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()
