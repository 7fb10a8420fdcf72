"""Which calls pass, and what is checked in each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tritonclient.grpc import service_pb2

from heartvoice.contracts.types import ModelSpec
from heartvoice.errors import InvalidRequestError
from heartvoice.gateway import request_parser
from heartvoice.gateway.access_log import Call
from heartvoice.gateway.checks import check_request, find_model

SERVICE = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
_HEALTH_CHECK = "/grpc.health.v1.Health/Check"
_SMALL_BYTES = 1000
"""More than any request that names at most a model."""


@dataclass(frozen=True)
class Method:
    """A call that passes."""

    path: str
    streamed: bool = False
    open: bool = False
    """Whether callers need no name: what load balancers ask."""
    named: Any = None
    """Message type of a request that names a model; None if its text is not looked at."""

    @property
    def name(self) -> str:
        """Without the service."""
        return self.path.rpartition("/")[2]

    def check(self, message: bytes, models: Mapping[str, ModelSpec], call: Call) -> None:
        """Check a request, and note what the access log says of it.

        Raises:
            InvalidRequestError: names field, limit and value.
        """
        if self.path in _INFERENCE:
            parts = request_parser.split(message)
            call.model = check_request(parts, models).name
            call.request_id = parts.head.id
            return
        if len(message) > _SMALL_BYTES:
            raise InvalidRequestError(f"request: expected at most {_SMALL_BYTES} bytes, got {len(message)}")
        if self.named is not None:
            call.model = find_model(request_parser.parse(self.named, message).name, models).name


def _path(name: str) -> str:
    return f"/{SERVICE.full_name}/{name}"


_INFERENCE = (_path("ModelInfer"), _path("ModelStreamInfer"))
METHODS = {
    method.path: method
    for method in (
        Method(_path("ModelInfer")),
        Method(_path("ModelStreamInfer"), streamed=True),
        Method(_path("ModelReady"), named=service_pb2.ModelReadyRequest),
        Method(_path("ModelMetadata"), named=service_pb2.ModelMetadataRequest),
        Method(_path("ServerLive"), open=True),
        Method(_path("ServerReady"), open=True),
        Method(_HEALTH_CHECK, open=True),
    )
}
"""All that pass. Of the others, those of the protocol (repository, shared memory, trace, logging, configuration,
statistics) are answered PERMISSION_DENIED."""
DENIED = {_path(method.name) for method in SERVICE.methods} - set(METHODS)
