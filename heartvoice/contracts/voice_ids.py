"""Ids of registered voices and of their consent records, as requests, reports and the registry have them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from heartvoice.arrays import Array
from heartvoice.contracts.field_checks import MAX_WORD_BYTES, read_text
from heartvoice.errors import InvalidRequestError

VOICE, CONSENT = "voice", "consent"
"""What an id begins with."""
_ID = re.compile(rf"({VOICE}|{CONSENT})_[0-9a-f]{{32}}")
_RECORD = re.compile(r"consent record ([A-Za-z0-9_-]{1,80})")


def is_id(text: str, kind: str) -> bool:
    """Return True if a text has the form of an id."""
    return _ID.fullmatch(text) is not None and text.startswith(kind)


def record_text(consent_record: str) -> str:
    """Return the consent text of a registered voice's request: the record's id alone, no contents."""
    return f"consent record {consent_record}"


def named_record(consent: str) -> str | None:
    """Return the id of the record that a consent text names; None if it is a text of another kind."""
    found = _RECORD.fullmatch(consent)
    return found[1] if found else None


def read_voice_id(inputs: Mapping[str, Array]) -> str:
    """Read the id of a registered voice, "" if there is none.

    Raises:
        InvalidRequestError: it has not the form of one. The message does not repeat it: it may be anything.
    """
    sent = read_text(inputs, "voice_id", MAX_WORD_BYTES)
    if "voice_id" in inputs and not is_id(sent, VOICE):
        raise InvalidRequestError(
            f"voice_id: expected {VOICE}_ and 32 hexadecimal digits, got {len(sent)} characters of another form"
        )
    return sent
