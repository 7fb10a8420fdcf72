"""One exception tree, shared by server and client, and one table of its codes.

    HeartvoiceError
    ├── InvalidRequestError         the caller's input is wrong
    │   └── UnknownSettingError     there is no such setting; also a TypeError
    ├── VoiceNotFoundError          no voice of that key is cached
    ├── ModelUnavailableError       not loaded, dead, or no room; another try may help
    │   ├── SetupError              this machine lacks something; the message says how to get it
    │   ├── ModelMissingError       no such model or server
    │   │   └── UnknownModelError   the same at the gateway
    │   └── QuotaError              the gateway's limit of a caller
    ├── UnauthenticatedError        the gateway does not know the caller
    ├── RequestCancelledError
    ├── DeadlineError
    ├── EngineError                 an engine, a stage or the protocol failed
    │   └── SigningError            a written file lacks the signature that it was to have
    ├── RegistryError               a registry of voices was changed or is damaged
    ├── CheckpointError             offline: a checkpoint is incomplete or damaged
    └── ExportError                 offline: an export does not hold what it should

A streamed KServe response carries an error as text alone, so the code is the first word of that text
(``INVALID_ARG: lyrics: ...``); `from_wire` turns it back into the same class on the other side.
"""

from __future__ import annotations

from dataclasses import dataclass

LONGEST_MESSAGE = 800
"""Characters of a message that cross the wire: gRPC's clients drop a status of more than 8 to 16 KB."""


class LyricsWarning(UserWarning):
    """The model was not made for something in the lyrics; the song is made all the same."""


class HeartvoiceError(Exception):
    """Base of every error that heartvoice raises on purpose; `code` is its KServe name."""

    code = "INTERNAL"

    def wire(self) -> str:
        """The text that crosses the wire: code, colon, message; of one that repeats a giant value, its beginning."""
        message = str(self)
        if len(message) > LONGEST_MESSAGE:
            message = f"{message[:LONGEST_MESSAGE]}... ({len(message) - LONGEST_MESSAGE} more characters)"
        return f"{self.code}: {message}"


class InvalidRequestError(HeartvoiceError):
    """The caller's input is wrong; the message names the field, the limit and the value."""

    code = "INVALID_ARG"


class UnknownSettingError(InvalidRequestError, TypeError):
    """A client was called with a keyword argument, or given a setting, that the job does not have."""


class VoiceNotFoundError(HeartvoiceError):
    """No voice of that key is kept here (any more): send the reference once more."""

    code = "NOT_FOUND"


class ModelUnavailableError(HeartvoiceError):
    """A model is not loaded, has died, or has no room for another job."""

    code = "UNAVAILABLE"


class SetupError(ModelUnavailableError):
    """This machine or environment lacks something that the server needs; the message says how to get it."""


class ModelMissingError(ModelUnavailableError):
    """There is no such model, or no such server: another try is useless."""


class UnknownModelError(ModelMissingError):
    """The gateway has no such model for its callers. The text is Triton's, which clients know."""

    def wire(self) -> str:
        """Without a code, as Triton says it in a stream."""
        return str(self)


class QuotaError(ModelUnavailableError):
    """A caller of the gateway asks for more than its share; later it may not be too much."""


class UnauthenticatedError(HeartvoiceError):
    """A caller of the gateway shows no token, or none that is known."""

    code = "UNAUTHENTICATED"


class RequestCancelledError(HeartvoiceError):
    """The caller, or the orchestrator on its behalf, cancelled the request."""

    code = "CANCELLED"


class DeadlineError(HeartvoiceError):
    """The caller's deadline passed before the answer was complete."""

    code = "DEADLINE_EXCEEDED"


class EngineError(HeartvoiceError):
    """An inference engine failed or returned something the contract forbids."""

    code = "INTERNAL"


class SigningError(EngineError):
    """A file was written and kept, but its signature failed; the message names the file and says why."""


class RegistryError(HeartvoiceError):
    """A registry of voices is not what was written: changed, damaged, an older copy, or of other keys."""

    code = "INTERNAL"


class CheckpointError(HeartvoiceError):
    """A checkpoint is incomplete, misshapen, damaged or not finite; the message names file and tensor."""

    code = "INTERNAL"


class ExportError(HeartvoiceError):
    """An export, or a repository on disk, does not hold what it should. Offline only."""

    code = "INTERNAL"


@dataclass(frozen=True)
class ErrorCodes:
    """The codes of one class of errors outside Python."""

    error: type[HeartvoiceError]
    triton: str
    """Triton's name of the code (`TritonError`); the wire code but for DEADLINE_EXCEEDED, which Triton lacks."""
    status: str
    """The gRPC status that is sent."""
    exit_code: int
    also: tuple[str, ...] = ()
    """Further gRPC statuses that a client reads as this class."""

    @property
    def code(self) -> str:
        """The wire code: first word of an error's text."""
        return self.error.code


TABLE = (
    ErrorCodes(InvalidRequestError, "INVALID_ARG", "INVALID_ARGUMENT", 2, ("OUT_OF_RANGE",)),
    ErrorCodes(ModelUnavailableError, "UNAVAILABLE", "UNAVAILABLE", 3, ("RESOURCE_EXHAUSTED",)),
    ErrorCodes(
        ModelMissingError, "UNAVAILABLE", "NOT_FOUND", 3, ("UNIMPLEMENTED", "UNAUTHENTICATED", "PERMISSION_DENIED")
    ),
    ErrorCodes(VoiceNotFoundError, "NOT_FOUND", "NOT_FOUND", 1),
    ErrorCodes(RequestCancelledError, "CANCELLED", "CANCELLED", 1, ("ABORTED",)),
    ErrorCodes(DeadlineError, "CANCELLED", "DEADLINE_EXCEEDED", 4),
    ErrorCodes(EngineError, "INTERNAL", "INTERNAL", 1),
    ErrorCodes(SigningError, "INTERNAL", "INTERNAL", 1),
    ErrorCodes(RegistryError, "INTERNAL", "INTERNAL", 1),
    ErrorCodes(CheckpointError, "INTERNAL", "INTERNAL", 1),
    ErrorCodes(ExportError, "INTERNAL", "INTERNAL", 1),
    ErrorCodes(SetupError, "UNAVAILABLE", "UNAVAILABLE", 3),
    ErrorCodes(UnknownSettingError, "INVALID_ARG", "INVALID_ARGUMENT", 2),
    ErrorCodes(UnknownModelError, "UNAVAILABLE", "NOT_FOUND", 3),
    ErrorCodes(QuotaError, "UNAVAILABLE", "RESOURCE_EXHAUSTED", 3),
    ErrorCodes(UnauthenticatedError, "INTERNAL", "UNAUTHENTICATED", 1),
)
"""One row for each class. Where rows share a code or status, the first is the class that a reader rebuilds."""
_INTERNAL = ErrorCodes(HeartvoiceError, "INTERNAL", "INTERNAL", 1)
_BY_CODE = {row.code: row.error for row in reversed(TABLE)}
_BY_STATUS = {status: row.error for row in reversed(TABLE) for status in (row.status, *row.also)}


def codes_of(error: BaseException | type[BaseException]) -> ErrorCodes:
    """The row of an error's class, or of the nearest class that it is derived from; INTERNAL if there is none."""
    kind = error if isinstance(error, type) else type(error)
    rows = {row.error: row for row in TABLE}
    return next((rows[base] for base in kind.__mro__ if base in rows), _INTERNAL)


def class_of_status(status: str) -> type[HeartvoiceError]:
    """The class that a gRPC status stands for, if its text says no more; EngineError for every other status."""
    return _BY_STATUS.get(status, EngineError)


def from_wire(text: str, default: type[HeartvoiceError] = EngineError) -> HeartvoiceError:
    """Rebuild the error that `HeartvoiceError.wire` wrote; text of another origin becomes `default`."""
    code, separator, message = text.partition(": ")
    if separator and code in _BY_CODE:
        return _BY_CODE[code](message)
    return default(text)
