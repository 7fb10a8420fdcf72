"""Attribution: text ready to publish, of what a report says, and its place in a file's comment tag."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from heartvoice.contracts.network_names import RANDOM, TITLES
from heartvoice.contracts.voice_ids import named_record

SONG, COVER, STEMS = "song", "cover", "stems"
"""What was asked for."""
_CREDITS = "; credits: "
"""Before the attribution in a comment tag."""
_UNSTATED = "licence not stated"


def attribution(report: Mapping[str, Any], made: str) -> str:
    """Return what was generated, by which models under which licences, and whose voice by which consent record.

    Never what was sung, nor the text of a consent.

    Args:
        report: of the server, whole but for this text.
        made: `SONG`, `COVER` or `STEMS`.
    """
    program = f"heartvoice {report['heartvoice']}"
    converted = report.get("converted")
    what = {
        SONG: f"AI-generated song, made with {program}",
        COVER: f"AI-generated singing in place of a recording's, made with {program}",
        STEMS: f"Stems of a recording, separated with {program}",
    }[made]
    if made == COVER and not converted:
        what = f"Recording as it was, passed through {program}; nothing in it was generated"
    parts = [what, _models(report)]
    if converted:
        record = consent_record(report)
        parts.append(f"Voice: a reference, by consent record {record}" if record else "Voice: a reference, by consent")
    return " ".join(f"{part}." for part in parts if part)


def consent_record(report: Mapping[str, Any]) -> str | None:
    """Return the public id of the consent record that a report names; None if the consent was a text."""
    named = report.get("consent_record")
    if isinstance(named, str) and named:
        return named
    return named_record(str(report.get("voice_consent", "")))


def _models(report: Mapping[str, Any]) -> str:
    """Name the models, each once, with what it did and its licence; those with random weights at last."""
    origins, names, licences = (report.get(key, {}) for key in ("networks", "models", "licences"))
    roles: dict[tuple[str, str], list[str]] = {}
    for network, title in TITLES.items():
        origin = str(origins.get(network, ""))
        if origin.startswith(RANDOM):
            roles.setdefault(("random weights", ""), []).append(title)
        elif origin:
            licence = str(licences.get(network, _UNSTATED))
            roles.setdefault((str(names.get(network, origin)), licence), []).append(title)
    ordered = sorted(roles.items(), key=lambda item: not item[0][1])
    named = [f"{name} ({', '.join(did)}{f'; {licence}' if licence else ''})" for (name, licence), did in ordered]
    return f"Models: {'; '.join(named)}" if named else ""


def with_credits(comment: str, text: str) -> str:
    """Return a comment tag with an attribution at its end."""
    return f"{comment}{_CREDITS}{text}" if text else comment


def without_credits(comment: str) -> str:
    """Return a comment tag as it was before its attribution."""
    return comment.partition(_CREDITS)[0]


def credits_of(comment: str) -> str:
    """Return the attribution in a comment tag; "" if there is none."""
    return comment.partition(_CREDITS)[2]
