"""What a registry says of consents and voices, as values and as canonical JSON."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from heartvoice.contracts.voice_ids import record_text

PENDING, VERIFIED, UNVERIFIED, REVOKED, PURGED = "pending", "verified", "unverified", "revoked", "purged"
OPEN, USED, EXPIRED = "open", "used", "expired"
NEXT_STATES: Mapping[str, frozenset[str]] = {
    "": frozenset({OPEN, PENDING}),
    OPEN: frozenset({USED, EXPIRED}),
    PENDING: frozenset({VERIFIED, UNVERIFIED, PURGED}),
    UNVERIFIED: frozenset({VERIFIED, REVOKED, PURGED}),
    VERIFIED: frozenset({REVOKED, PURGED}),
    REVOKED: frozenset({PURGED}),
}
"""Which states may follow on which, of voices and consents; what is missing is final."""
UNFINISHED = frozenset({OPEN, PENDING})
"""States that end by themselves after a while."""
SINGS = frozenset({VERIFIED})
"""States of voices that sing."""


def new_id(kind: str) -> str:
    """Return an id of 128 random bits, such as `voice_0f...`."""
    return f"{kind}_{secrets.token_hex(16)}"


def canonical(value: Mapping[str, Any]) -> bytes:
    """Return the one form of a JSON object that is hashed and signed: sorted, without blanks, UTF-8."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def digest(content: bytes) -> str:
    """Return the sha256 of canonical JSON."""
    return hashlib.sha256(content).hexdigest()


def utc(seconds: float) -> str:
    """Return a time as ISO 8601 in UTC, to the second."""
    return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%dT%H:%M:%SZ}"


@dataclass(frozen=True)
class Consent:
    """What a speaker is asked to read aloud, once."""

    id: str
    speaker: str
    purpose: str
    service: str
    locale: str
    words: tuple[str, ...]
    text: str
    issued_s: float
    expires_s: float


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    check: str
    passed: bool | None
    """None: it could not be decided."""
    detail: str
    facts: Mapping[str, Any]
    """Numbers, thresholds, and the sha256 of what judged."""

    def as_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {"check": self.check, "passed": self.passed, "detail": self.detail, **self.facts}


@dataclass(frozen=True)
class Examination:
    """What the checks of one enrolment found together."""

    findings: tuple[Finding, ...]
    transcript: str
    """What was heard in the phrase; empty if nobody listened."""

    @property
    def refused(self) -> list[Finding]:
        """Checks that failed."""
        return [each for each in self.findings if each.passed is False]

    @property
    def state(self) -> str:
        """State of the voice, if nothing failed."""
        return VERIFIED if all(each.passed for each in self.findings) else UNVERIFIED


@dataclass(frozen=True)
class VoiceStatus:
    """One voice, as the log has it."""

    id: str
    owner: str
    state: str
    consent: str
    """Id of the consent record."""
    changed_s: float


@dataclass(frozen=True)
class VoiceRecord:
    """A voice with its signed record."""

    status: VoiceStatus
    record: Mapping[str, Any]
    """Empty once the voice is purged."""
    content: bytes
    """Of the record, or of the tombstone, as it was signed."""
    signature: bytes


@dataclass(frozen=True)
class VoiceReference:
    """A voice that may sing."""

    voice: str
    consent_record: str
    file: bytes
    """The reference as it was enrolled: an encoded sound file."""

    @property
    def consent(self) -> str:
        """The consent text of a request: the record's id alone, no contents."""
        return record_text(self.consent_record)


def recording_file(number: int, content: bytes) -> str:
    """Return the file name of an exported recording; 0 is the phrase."""
    known = ((b"RIFF", "wav"), (b"fLaC", "flac"), (b"OggS", "ogg"), (b"FORM", "aiff"))
    ending = next((ending for head, ending in known if content.startswith(head)), "mp3")
    return f"{f'reference-{number}' if number else 'phrase'}.{ending}"
