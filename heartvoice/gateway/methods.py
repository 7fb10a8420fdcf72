"""Lists the permitted methods and the checks of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tritonclient.grpc import service_pb2

from heartvoice.contracts.types import ModelSpec
from heartvoice.errors import InvalidRequestError
from heartvoice.gateway import reflection, request_parser
from heartvoice.gateway.access_log import Call
from heartvoice.gateway.checks import check_request, find_model
from heartvoice.gateway.registered_voices import voice_id_of

SERVICE = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
_HEALTH = "/grpc.health.v1.Health"
_SMALL_BYTES = 1000
"""Upper limit in bytes for a request that contains at most a model's name."""


@dataclass(frozen=True)
class Method:
    """A permitted method."""

    path: str
    streamed: bool = False
    open: bool = False
    """True if callers need no authentication, as for load balancers."""
    own: bool = False
    """True if the gateway answers by itself (`own_answers`, `reflection`)."""
    named: Any = None
    """Message type of a request that names a model; None if the request is not parsed."""

    @property
    def name(self) -> str:
        """Name without the service."""
        return self.path.rpartition("/")[2]

    @property
    def infers(self) -> bool:
        """True if its requests are for a model's work."""
        return self.path in _INFERENCE

    def check(
        self, message: bytes, models: Mapping[str, ModelSpec], call: Call, *, registered_only: bool = False
    ) -> str:
        """Check a request and record its facts for the access log.

        Returns:
            The id of the registered voice that it names; "" if it names none.

        Raises:
            InvalidRequestError: names field, limit and value.
        """
        if self.infers:
            parts = request_parser.split(message)
            call.model = check_request(parts, models, registered_only=registered_only).name
            call.request_id = parts.head.id
            return voice_id_of(parts)
        if len(message) > _SMALL_BYTES:
            raise InvalidRequestError(f"request: expected at most {_SMALL_BYTES} bytes, got {len(message)}")
        if self.named is not None:
            call.model = find_model(request_parser.parse(self.named, message).name, models).name
        return ""


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
        Method(_path("ServerLive"), open=True, own=True),
        Method(_path("ServerReady"), open=True, own=True),
        Method(f"{_HEALTH}/Check", open=True, own=True),
        Method(f"{_HEALTH}/Watch", streamed=True, open=True, own=True),
        Method(_path("ServerMetadata"), own=True),
        *(Method(path, streamed=True, own=True) for path in reflection.PATHS),
    )
}
"""All permitted methods. The protocol's other methods (repository, shared memory, trace, logging, configuration,
statistics) are answered with PERMISSION_DENIED."""
DENIED = {_path(method.name) for method in SERVICE.methods} - set(METHODS)
