"""Claims as C2PA manifest definitions."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

from heartvoice import __version__
from heartvoice.contracts.claims import Claim, Making

SONG_LABEL = "org.heartvoice.song.v1"
"""Assertion with heartvoice's own facts; readers give it back without the version."""
SOFT_BINDING_LABEL = "c2pa.soft-binding"
_SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
TRAINED, COMPOSITE, ENHANCED = (
    _SOURCE_TYPES + name
    for name in ("trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia", "algorithmicallyEnhanced")
)
VOICE_ID_PREFIX = "hmac-sha256:"
NO_VOICE = {"used": False}


def voice_id(key: bytes, voice_sha256: str) -> str:
    """Return a voice's public id: who lacks the key cannot tell which reference it is, nor ask a server for it."""
    return VOICE_ID_PREFIX + hmac.new(key, bytes.fromhex(voice_sha256), hashlib.sha256).hexdigest()[:32]


def definition(claim: Claim, *, media_type: str, title: str, voice_key: bytes) -> dict[str, Any]:
    """Return the manifest definition of a claim, without its ingredient."""
    watermark = _soft_binding(claim)
    assertions = [
        {"label": "c2pa.actions.v2", "data": {"actions": _actions(claim, marked=bool(watermark))}},
        {"label": SONG_LABEL, "data": _plain(_facts(claim, voice_key))},
        *watermark,
    ]
    return {
        "claim_generator_info": [{"name": "heartvoice", "version": __version__}],
        "title": title.encode("utf-8", "backslashreplace").decode(),  # a file's name may be bytes that are no text
        "format": media_type,
        "assertions": assertions,
    }


def _actions(claim: Claim, *, marked: bool) -> list[dict[str, Any]]:
    agent = {"name": "heartvoice", "version": __version__}
    what: dict[Making, dict[str, Any]] = {
        Making.CREATED: {"action": "c2pa.created", "digitalSourceType": TRAINED},
        Making.CONVERTED: {
            "action": "c2pa.edited", "digitalSourceType": COMPOSITE, "description": "The singer was replaced.",
        },
        Making.PASSED: {"action": "c2pa.transcoded", "description": "Nothing was converted."},
        Making.SEPARATED: {
            "action": "c2pa.edited", "digitalSourceType": ENHANCED, "description": f"The stem {claim.stem}.",
        },
    }  # fmt: skip
    actions = [what[claim.making] | {"softwareAgent": agent}]
    if marked:
        actions.append({"action": "c2pa.watermarked.bound", "softwareAgent": agent})
    return actions


def _facts(claim: Claim, voice_key: bytes) -> dict[str, Any]:
    voice: dict[str, Any] = dict(NO_VOICE)
    if claim.voice_sha256 is not None:
        voice = {"used": True, "id": voice_id(voice_key, claim.voice_sha256)}
        if claim.consent_record is not None:
            voice["consent_record"] = claim.consent_record
    facts = {**claim.facts, "making": claim.making.value, "voice": voice}
    for name, value in (("stem", claim.stem), ("attribution", claim.attribution)):
        if value:
            facts[name] = value
    return facts


def _plain(value: Any) -> Any:
    """A JSON value with text in place of lists: readers give a list of numbers back as base64 of bytes."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else value


def _soft_binding(claim: Claim) -> list[dict[str, Any]]:
    """The watermark, where the report names one."""
    algorithm, payload = claim.watermark.get("alg"), claim.watermark.get("payload")
    if not algorithm or not payload:
        return []
    blocks = [{"scope": {}, "value": str(payload)}]
    return [{"label": SOFT_BINDING_LABEL, "data": {"alg": str(algorithm), "blocks": blocks}}]
