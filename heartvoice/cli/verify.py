"""The command `heartvoice verify`: says who signed a file, and whether it was changed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from heartvoice.cli.optional_dependencies import require
from heartvoice.cli.options import JsonOption
from heartvoice.cli.output import print_lines
from heartvoice.errors import InvalidRequestError

if TYPE_CHECKING:
    from heartvoice.provenance.verification import Verification

_MEANINGS = {
    "trusted": "unchanged since it was signed, by a signer under a trusted certificate",
    "untrusted": "unchanged since it was signed, by a signer whom no anchor vouches for",
    "changed": "NOT what was signed: it was changed afterwards",
    "invalid": "its manifest or the file itself is damaged",
    "unsigned": "no manifest: nothing says where it comes from",
}


def verify(
    *,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .wav, .flac, .mp3, .m4a or .ogg file.")],
    anchors: Annotated[
        list[Path] | None,
        typer.Option(metavar="PEM", help="Trusted roots; may be repeated. Default: those of `heartvoice keys`."),
    ] = None,
    any_signer: Annotated[bool, typer.Option(help="Leave with 0 for every unchanged file, whoever signed it.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check a file's C2PA manifest: whether it was changed since it was signed, and who signed it.

    Nothing is fetched from the network. The manifest of an .ogg file lies beside it, as NAME.c2pa.

    Exit codes: 0 unchanged and signed by a trusted signer (with --any-signer: by anybody), 1 anything else, 2 no audio
    file or unreadable anchors.
    """
    require("trust", "c2pa", "cryptography")
    from heartvoice.provenance.key_folder import default_anchors
    from heartvoice.provenance.verification import verify_file

    try:
        roots = default_anchors() if anchors is None else b"\n".join(path.read_bytes() for path in anchors)
        found = verify_file(file, roots)
    except OSError as error:  # 1 would say that the file was changed
        raise InvalidRequestError(f"{error.filename}: cannot be read: {error.strerror}") from error
    passed = found.state == "trusted" or (any_signer and found.state == "untrusted")
    if as_json:
        typer.echo(json.dumps({"file": str(file), "passed": passed, **found.as_json()}))
    print_lines(_lines(file, found), Console(stderr=as_json))
    raise typer.Exit(0 if passed else 1)


def _lines(file: Path, found: Verification) -> list[str]:
    """Return the result for people, the state first."""
    lines = [f"{file}: {found.state}: {_MEANINGS[found.state]}"]
    if found.signer:
        lines.append(f"signed by {found.signer}")
    if found.source_type:
        lines.append(f"made: {', '.join(found.actions)} ({found.source_type.rpartition('/')[2]})")
    lines += _fact_lines(found.facts)
    for each in found.ingredients:
        signed = "with its own manifest" if each["signed"] else "without a manifest"
        lines.append(f"made from: {each['title']} ({signed})")
    if found.soft_binding:
        lines.append(f"watermark: {found.soft_binding['alg']}, {found.soft_binding['value']}")
    return lines + [f"problem: {problem}" for problem in found.problems]


def _fact_lines(facts: Mapping[str, Any]) -> list[str]:
    """Return lines on what heartvoice says of the file; a stranger's facts may be of any type."""
    if not facts:
        return []
    named = [f"{name} {facts[name]}" for name in ("heartvoice", "preset", "seed") if name in facts]
    lines = [", ".join(named)] if named else []
    voice = facts.get("voice")
    if isinstance(voice, dict):
        record = f"consent record {voice['consent_record']}" if "consent_record" in voice else "no consent record"
        lines.append(f"voice: {voice.get('id')}, {record}" if voice.get("used") else "voice: none used")
    return lines
