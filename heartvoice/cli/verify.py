"""The command `heartvoice verify`: says who signed a file, whether it was changed, and whose mark it carries."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from heartvoice.cli.options import JsonOption
from heartvoice.cli.output import print_lines
from heartvoice.errors import InvalidRequestError
from heartvoice.optional_dependencies import require

if TYPE_CHECKING:
    from heartvoice.provenance.verification import Verification
    from heartvoice.watermark import Detection

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
    watermark_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also look for the mark of this key in the sound; not in .m4a files."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check a file's C2PA manifest: whether it was changed since it was signed, and who signed it.

    Nothing is fetched from the network. The manifest of an .ogg file lies beside it, as NAME.c2pa.

    A mark in the sound outlasts the manifest and most codecs. Whether it is found changes no exit code.

    Exit codes: 0 unchanged and signed by a trusted signer (with --any-signer: by anybody), 1 anything else, 2 no audio
    file, or unreadable anchors or key.
    """
    require("trust", "c2pa", "cryptography")
    from heartvoice.provenance.key_folder import default_anchors
    from heartvoice.provenance.verification import verify_file

    try:
        roots = default_anchors() if anchors is None else b"\n".join(path.read_bytes() for path in anchors)
        found = verify_file(file, roots)
        marks = None if watermark_key is None else _find_marks(file, watermark_key)
    except OSError as error:  # 1 would say that the file was changed
        raise InvalidRequestError(f"{error.filename}: cannot be read: {error.strerror}") from error
    passed = found.state == "trusted" or (any_signer and found.state == "untrusted")
    if as_json:
        fields = {} if marks is None else {"watermark": _mark_fields(marks, found.soft_binding)}
        typer.echo(json.dumps({"file": str(file), "passed": passed, **found.as_json(), **fields}))
    lines = _lines(file, found) + ([] if marks is None else _mark_lines(_mark_fields(marks, found.soft_binding)))
    print_lines(lines, Console(stderr=as_json))
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
        what = f"{each['title']}, {each['description']}" if each["description"] else each["title"]
        lines.append(f"made from: {what} ({signed})")
    if found.soft_binding:
        lines.append(f"watermark: {found.soft_binding['alg']}, {found.soft_binding['value']}")
    return lines + [f"problem: {problem}" for problem in found.problems]


def _find_marks(file: Path, key_file: Path) -> list[Detection]:
    """Look for the marks of a key in a file's sound, the clearest first.

    Raises:
        InvalidRequestError: the key cannot be read, or the file cannot be decoded.
        OSError: the file cannot be read.
    """
    from heartvoice.audio.decode import decode
    from heartvoice.contracts.constants import MAX_LOCAL_FILE_BYTES
    from heartvoice.contracts.field_checks import STEMS_LIMITS_S
    from heartvoice.watermark import Evidence, read_key

    require("trust", "soxr")
    key = read_key(key_file)
    sound = decode(file.read_bytes(), field="file", max_s=STEMS_LIMITS_S[1], max_bytes=MAX_LOCAL_FILE_BYTES)
    return Evidence(sound.audio, sound.sample_rate_hz).detect_each(key)


def _mark_fields(marks: Sequence[Detection], named: Mapping[str, str]) -> dict[str, Any]:
    """Return the clearest mark, all that were found, and whether the manifest names one of these.

    Args:
        marks: of each kind, the clearest first.
        named: the manifest's soft binding.
    """
    from heartvoice.watermark import ALGORITHM

    found = [mark.as_fields() for mark in marks if mark.found]
    is_named = None
    if found and named.get("alg") == ALGORITHM:
        is_named = named["value"] in [mark["payload"] for mark in found]
    return {**marks[0].as_fields(), "alg": ALGORITHM, "marks": found, "named_by_manifest": is_named}


def _mark_lines(fields: Mapping[str, Any]) -> list[str]:
    """Return lines on the marks in the sound."""
    if not fields["found"]:
        return [f"mark of the key: not found (score {fields['score']}, at least {fields['threshold']})"]
    lines = [
        f"mark of the key: found, of a {mark['kind']}, payload {mark['payload']} "
        f"(score {mark['score']}, at least {mark['threshold']})"
        for mark in fields["marks"]
    ]
    if fields["named_by_manifest"] is False:
        lines.append("problem: the manifest names another payload: it belongs to another song")
    return lines


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
