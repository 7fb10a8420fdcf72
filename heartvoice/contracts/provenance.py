"""The comment tags of audio files: which of them are AI-generated, and how they were made."""

from __future__ import annotations

from dataclasses import dataclass

from heartvoice import __version__

GENERATED = "AI-generated"
"""The mark that a file keeps through every later step."""


@dataclass(frozen=True)
class Tags:
    """The tags of an audio file; "" for each that it lacks."""

    comment: str = ""
    title: str = ""
    artist: str = ""


def provenance(seed: int, *, random_weights: bool) -> str:
    """The comment tag of a generated song: generator and seed. Never the voice's hash, by which servers know it."""
    parts = [f"{GENERATED}; heartvoice {__version__}; seed {seed}"]
    if random_weights:
        parts.append("random weights")
    return "; ".join(parts)


def passthrough_provenance(*, origin: str = "") -> str:
    """The comment tag of a cover that was not converted; AI-generated only if its `origin` tag says so."""
    return _with_origin([f"passed through heartvoice {__version__}, not converted"], origin)


def stem_provenance(source: str, *, random_weights: bool, origin: str = "") -> str:
    """The comment tag of a stem: part of a recording, so AI-generated only if its `origin` tag says so."""
    parts = [f"separated by heartvoice {__version__}", f"source {source}"]
    if random_weights:
        parts.append("random weights")
    return _with_origin(parts, origin)


def _with_origin(parts: list[str], origin: str) -> str:
    return "; ".join([*parts, f"from: {origin}"] if origin else parts)
