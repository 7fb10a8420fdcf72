"""gRPC server reflection: what `grpcurl` and other tools ask before they call."""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2

from heartvoice.errors import InvalidRequestError

PATHS = tuple(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo" for version in ("v1", "v1alpha"))
"""Both versions have the same messages."""


def make_reflection() -> Callable[[bytes], bytes]:
    """Return what answers one request of a reflection stream."""
    from grpc_reflection.v1alpha import reflection, reflection_pb2

    services = [service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name, reflection.SERVICE_NAME]
    servicer = reflection.ReflectionServicer(services)

    def answer(message: bytes) -> bytes:
        try:
            request = reflection_pb2.ServerReflectionRequest.FromString(message)
        except DecodeError as error:
            raise InvalidRequestError("request: expected a ServerReflectionRequest, got something else") from error
        encoded: bytes = next(servicer.ServerReflectionInfo(iter([request]), None)).SerializeToString()
        return encoded

    return answer
