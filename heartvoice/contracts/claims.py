"""What the manifest of a written file claims, and what signs it; free of any library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import IO, Any, Protocol

from heartvoice.contracts.attribution import consent_record
from heartvoice.contracts.messages import Report, StemsReport
from heartvoice.contracts.provenance import Tags

_FACTS = (
    "heartvoice", "preset", "precision", "contract", "networks", "models", "licences", "hashes", "random_weights",
    "seed", "settings",
)  # fmt: skip
"""Fields of a report that a manifest repeats. Never the voice's sha256, by which servers know it, nor any text."""


class Making(Enum):
    """How a file came about."""

    CREATED = "created"
    """A song: everything in it is generated."""
    CONVERTED = "converted"
    """A recording with another singer."""
    PASSED = "passed"
    """A recording as it was: nothing was converted."""
    SEPARATED = "separated"
    """A stem of a recording."""


@dataclass(frozen=True)
class Source:
    """The recording that something was made from.

    Attributes:
        file: content of its encoded file; None for mere samples.
        tags: its own, as far as they are kept: the comment only if it says "AI-generated".
    """

    file: bytes | None = field(default=None, repr=False)
    tags: Tags = field(default_factory=Tags)


NO_SOURCE = Source()


@dataclass(frozen=True)
class Claim:
    """What a manifest says of one file.

    Attributes:
        making: how the file came about.
        facts: JSON values: program, networks, settings, seed.
        voice_sha256: of the reference that the singing was converted to; goes into the manifest by an HMAC alone.
        consent_record: public id of the voice's consent record; None if there is none.
        source: what the sound was made from; empty for a song.
        watermark: the report's own field; empty without one.
        stem: name of the stem that the file holds; "" for a whole song.
        attribution: text ready to publish.
    """

    making: Making
    facts: Mapping[str, Any]
    voice_sha256: str | None = None
    consent_record: str | None = None
    source: Source = NO_SOURCE
    watermark: Mapping[str, Any] = field(default_factory=dict)
    stem: str = ""
    attribution: str = ""


def song_claim(report: Report, source: Source = NO_SOURCE, *, stem: str = "") -> Claim:
    """Return the claim of a song or cover, or of one stem of its mix; `source` is a cover's recording."""
    converted = report.converted is True
    of_recording = Making.CONVERTED if converted else Making.PASSED
    making = of_recording if report.recorded else Making.CREATED
    return Claim(
        making,
        _facts(report.raw),
        voice_sha256=report.raw.get("voice_sha256") if converted else None,
        consent_record=consent_record(report.raw) if converted else None,
        source=source if report.recorded else NO_SOURCE,
        watermark={} if stem else report.raw.get("watermark", {}),  # the mark is in the mix alone
        stem=stem,
        attribution=report.attribution,
    )


def separation_claim(report: StemsReport, stem: str, source: Source) -> Claim:
    """Return the claim of a stem that was separated from a recording."""
    return Claim(Making.SEPARATED, _facts(report.raw), source=source, stem=stem, attribution=report.attribution)


def sidecar_path(path: Path) -> Path:
    """Return where the manifest of a file lies whose format has no place for one."""
    return path.with_suffix(".c2pa")


def _facts(raw: Mapping[str, Any]) -> dict[str, Any]:
    return {name: raw[name] for name in _FACTS if name in raw}


class ClaimSigner(Protocol):
    """Signs what is written, such as `heartvoice.provenance.signer.ManifestSigner`."""

    def sign(self, claim: Claim, file_format: str, source: IO[bytes], target: IO[bytes], *, title: str) -> bytes:
        """Copy an encoded file into `target`, with its manifest.

        Args:
            claim: what the manifest says.
            file_format: one of `AUDIO_FORMATS`.
            source: the encoded file, with its final tags: every later change breaks the signature.
            target: an empty file, open for reading and writing.
            title: the file's name.

        Returns:
            The manifest, if the format has no place for it and it belongs beside the file; else b"".
        """
        ...
