"""What owners of voices may do, and what examines their recordings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from heartvoice.voices.records import Consent, Examination


@dataclass(frozen=True)
class Limits:
    """What an owner may do, and how large recordings may be."""

    tries_per_hour: int = 5
    """Enrolments."""
    consents_per_hour: int = 20
    phrase_bytes: int = 10_000_000
    reference_bytes: int = 40_000_000
    references: int = 5


class Checks(Protocol):
    """Examines the recordings of an enrolment."""

    def examine(self, consent: Consent, phrase: bytes, references: Sequence[bytes]) -> Examination:
        """Check recordings against a consent.

        Args:
            consent: what was to be read.
            phrase: encoded sound file in which it is read.
            references: encoded sound files of the voice.

        Raises:
            InvalidRequestError: one is no sound file, or too short or long.
        """
        ...
