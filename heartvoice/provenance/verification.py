"""Verifies manifests of files that anybody may have made. Nothing is fetched from the network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Literal

import c2pa

from heartvoice.contracts.claims import sidecar_path
from heartvoice.errors import InvalidRequestError
from heartvoice.provenance.certificates import read_chain
from heartvoice.provenance.formats import MEDIA_TYPES, SIDECAR_ONLY, container_of
from heartvoice.provenance.library import offline
from heartvoice.provenance.manifest import SOFT_BINDING_LABEL, SONG_LABEL

State = Literal["trusted", "untrusted", "changed", "invalid", "unsigned"]
_UNTRUSTED = "signingCredential.untrusted"
_REMOTE = "Remote: "
_MAX_SIDECAR_BYTES = 64 << 20
_LONGEST_PROBLEM = 300


@dataclass(frozen=True)
class Verification:
    """What is known of a file.

    Attributes:
        state: `trusted`: unchanged, and signed by a certificate under an anchor; `untrusted`: unchanged, and signed
            by someone else; `changed`: not what was signed; `invalid`: manifest or file are damaged; `unsigned`.
        problems: the library's codes or messages.
        signer: organisation and name of the certificate; "" if there is none.
        manifest_file: the sidecar that was read; "" if the manifest is in the file.
        title: the file's name when it was signed.
        actions: what was done, by C2PA's names.
        source_type: IPTC's digital source type.
        facts: heartvoice's own: program, networks, settings, seed, voice.
        ingredients: what it was made from: title, description, and `signed` if that carried a manifest.
        soft_binding: of the watermark: algorithm and value; empty if the manifest names none.
    """

    state: State
    problems: tuple[str, ...] = ()
    signer: str = ""
    manifest_file: str = ""
    title: str = ""
    actions: tuple[str, ...] = ()
    source_type: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    ingredients: tuple[Mapping[str, Any], ...] = ()
    soft_binding: Mapping[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return all of it as JSON values."""
        return asdict(self)


def verify_file(path: Path, anchors: bytes = b"") -> Verification:
    """Read and check the manifest of a WAV, FLAC, MP3, M4A or OGG file; that of an OGG lies beside it.

    Args:
        path: the file.
        anchors: root certificates as PEM; without any no signer is trusted.

    Raises:
        InvalidRequestError: it is no such file, or the anchors are no certificates.
        OSError: it cannot be read.
    """
    if anchors:
        read_chain(anchors, field="anchors")
    if path.exists() and not path.is_file():
        raise InvalidRequestError(f"file: expected a file, got {str(path)!r}, which is something else")
    with path.open("rb") as file:
        container = container_of(file)
        if container is None:
            raise InvalidRequestError(f"file: expected WAV, FLAC, MP3, M4A or OGG, got something else: {str(path)!r}")
        beside = sidecar_path(path) if container in SIDECAR_ONLY else None
        if beside is not None and not beside.exists():
            return Verification("unsigned", (f"no manifest beside it: {beside}",))
        manifest = None
        if beside is not None:
            if beside.stat().st_size > _MAX_SIDECAR_BYTES:
                raise InvalidRequestError(f"{beside}: expected at most {_MAX_SIDECAR_BYTES} bytes")
            manifest = beside.read_bytes()
        found = verify_stream(file, container, manifest=manifest, anchors=anchors)
    return found if beside is None else replace(found, manifest_file=str(beside))


def verify_stream(
    file: IO[bytes], container: str, *, manifest: bytes | None = None, anchors: bytes = b""
) -> Verification:
    """Check an open file of a container out of `MEDIA_TYPES`, by the manifest in it or by `manifest`."""
    file.seek(0)
    try:
        with (
            offline(anchors) as context,
            c2pa.Reader(MEDIA_TYPES[container], file, manifest, context=context) as reader,
        ):
            return _read(reader)
    except c2pa.C2paError as error:
        problem = " ".join(str(error).split())[:_LONGEST_PROBLEM]
        elsewhere = problem.startswith(_REMOTE)
        if elsewhere:
            problem = f"its manifest is on the network and was not fetched: {problem.removeprefix(_REMOTE).split()[-1]}"
        unsigned = elsewhere or isinstance(error, c2pa.C2paError.ManifestNotFound)
        return Verification("unsigned" if unsigned else "invalid", (problem,))


def _read(reader: c2pa.Reader) -> Verification:
    document = json.loads(reader.json())
    active = document["manifests"][document["active_manifest"]]
    results = document.get("validation_results", {})
    problems = [each["code"] for each in results.get("activeManifest", {}).get("failure", ())]
    signature, assertions = active.get("signature_info", {}), _assertions(active)
    actions = assertions.get("c2pa.actions.v2", {}).get("actions", ())
    return Verification(
        _state(str(document.get("validation_state")), problems),
        tuple(dict.fromkeys(problems)),
        ", ".join(signature[name] for name in ("issuer", "common_name") if signature.get(name)),
        "",
        str(active.get("title", "")),
        tuple(str(each.get("action")) for each in actions),
        next((str(each["digitalSourceType"]) for each in actions if "digitalSourceType" in each), ""),
        assertions.get(SONG_LABEL.removesuffix(".v1"), {}),
        tuple(_ingredient(each) for each in active.get("ingredients", ())),
        _soft_binding(assertions.get(SOFT_BINDING_LABEL, {})),
    )


def _state(found: str, problems: list[str]) -> State:
    if found == "Trusted":
        return "trusted"
    if found == "Valid":
        return "untrusted"
    changed = any(code.endswith(".mismatch") for code in problems)
    return "changed" if changed else "invalid"


def _assertions(manifest: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return a manifest's assertions by label; a stranger's may be anything but objects."""
    found = ((each.get("label"), each.get("data")) for each in manifest.get("assertions", ()))
    return {str(label): data for label, data in found if isinstance(data, dict)}


def _ingredient(found: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "title": str(found.get("title", "")),
        "description": str(found.get("description", "")),
        "relationship": str(found.get("relationship", "")),
        "signed": found.get("active_manifest") is not None,
    }


def _soft_binding(data: Mapping[str, Any]) -> dict[str, str]:
    blocks = data.get("blocks")
    first = blocks[0] if isinstance(blocks, list) and blocks else None
    if "alg" not in data or not isinstance(first, dict):
        return {}
    return {"alg": str(data["alg"]), "value": str(first.get("value", ""))}
