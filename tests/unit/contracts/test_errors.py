"""The one table of errors: wire codes, Triton's codes, gRPC's statuses and exit codes."""

from __future__ import annotations

import pkgutil
from importlib import import_module

import grpc
import pytest

import heartvoice.client
import heartvoice.gateway
from heartvoice import errors
from heartvoice.errors import TABLE, DeadlineError, EngineError, HeartvoiceError, InvalidRequestError, codes_of

TRITON = {
    "UNKNOWN",
    "INTERNAL",
    "NOT_FOUND",
    "INVALID_ARG",
    "UNAVAILABLE",
    "UNSUPPORTED",
    "ALREADY_EXISTS",
    "CANCELLED",
}
"""The codes of `triton_python_backend_utils.TritonError`."""


ROOMS = ("heartvoice.errors", "heartvoice.client", "heartvoice.gateway")
"""Where an error that a caller may get is defined; other tests of this process may have imported more."""


def subclasses(kind: type[HeartvoiceError]) -> set[type[HeartvoiceError]]:
    return {kind}.union(*map(subclasses, kind.__subclasses__()))


def test_every_class_has_a_row() -> None:
    for room in (heartvoice.client, heartvoice.gateway):
        for module in pkgutil.iter_modules(room.__path__, f"{room.__name__}."):
            import_module(module.name)
    ours = {kind for kind in subclasses(HeartvoiceError) if kind.__module__.startswith(ROOMS)}
    assert ours == {HeartvoiceError} | {row.error for row in TABLE}
    assert len({row.error for row in TABLE}) == len(TABLE)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.error.__name__)
def test_rows_name_codes_that_exist(row: errors.ErrorCodes) -> None:
    assert row.triton in TRITON
    assert all(hasattr(grpc.StatusCode, status) for status in (row.status, *row.also))
    assert codes_of(row.error("x")) is row
    assert 1 <= row.exit_code <= 4


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("INVALID_ARGUMENT", "InvalidRequestError"), ("OUT_OF_RANGE", "InvalidRequestError"),
        ("UNAVAILABLE", "ModelUnavailableError"), ("RESOURCE_EXHAUSTED", "ModelUnavailableError"),
        ("NOT_FOUND", "ModelMissingError"), ("UNIMPLEMENTED", "ModelMissingError"),
        ("UNAUTHENTICATED", "ModelMissingError"), ("PERMISSION_DENIED", "ModelMissingError"),
        ("DEADLINE_EXCEEDED", "DeadlineError"), ("CANCELLED", "RequestCancelledError"),
        ("ABORTED", "RequestCancelledError"), ("INTERNAL", "EngineError"), ("DATA_LOSS", "EngineError"),
    ],
)  # fmt: skip
def test_a_status_is_read_as_the_class_that_callers_can_act_on(status: str, kind: str) -> None:
    assert errors.class_of_status(status).__name__ == kind


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("INVALID_ARG", "InvalidRequestError"), ("NOT_FOUND", "VoiceNotFoundError"),
        ("UNAVAILABLE", "ModelUnavailableError"), ("CANCELLED", "RequestCancelledError"),
        ("DEADLINE_EXCEEDED", "DeadlineError"), ("INTERNAL", "EngineError"),
    ],
)  # fmt: skip
def test_a_wire_code_is_read_as_the_class_that_wrote_it(code: str, kind: str) -> None:
    error = errors.from_wire(f"{code}: what happened")
    assert (type(error).__name__, str(error)) == (kind, "what happened")


def test_a_class_without_a_row_has_its_base_class_codes() -> None:
    class LateError(DeadlineError):
        pass

    assert codes_of(LateError("x")).exit_code == 4
    assert codes_of(InvalidRequestError).triton == "INVALID_ARG"
    assert codes_of(KeyError("x")).exit_code == 1
    assert codes_of(EngineError).status == "INTERNAL"
