"""One exception tree, shared by server and client, and its wire codes.

A streamed KServe response carries an error as text alone, so the code travels as the first word of that text
(``INVALID_ARG: lyrics: ...``); `from_wire` turns it back into the same class on the other side.
"""

from __future__ import annotations

LONGEST_MESSAGE = 800
"""Characters of a message that cross the wire: gRPC's clients drop a status of more than 8 to 16 KB."""


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


class VoiceNotFoundError(HeartvoiceError):
    """No voice of that key is kept here (any more): send the reference once more."""

    code = "NOT_FOUND"


class ModelUnavailableError(HeartvoiceError):
    """A model is not loaded, has died, or has no room for another job."""

    code = "UNAVAILABLE"


class RequestCancelledError(HeartvoiceError):
    """The caller, or the orchestrator on its behalf, cancelled the request."""

    code = "CANCELLED"


class DeadlineError(HeartvoiceError):
    """The caller's deadline passed before the answer was complete."""

    code = "DEADLINE_EXCEEDED"


class EngineError(HeartvoiceError):
    """An inference engine failed or returned something the contract forbids."""

    code = "INTERNAL"


class CheckpointError(HeartvoiceError):
    """A checkpoint is incomplete, misshapen, damaged or not finite; the message names file and tensor."""

    code = "INTERNAL"


class ExportError(HeartvoiceError):
    """An export, or a repository on disk, does not hold what it should. Offline only."""

    code = "INTERNAL"


_BY_CODE: dict[str, type[HeartvoiceError]] = {
    error.code: error
    for error in (
        InvalidRequestError,
        VoiceNotFoundError,
        ModelUnavailableError,
        RequestCancelledError,
        DeadlineError,
        EngineError,
    )
}


def from_wire(text: str, default: type[HeartvoiceError] = EngineError) -> HeartvoiceError:
    """Rebuild the error that `HeartvoiceError.wire` wrote; text of another origin becomes `default`."""
    code, separator, message = text.partition(": ")
    if separator and code in _BY_CODE:
        return _BY_CODE[code](message)
    return default(text)
