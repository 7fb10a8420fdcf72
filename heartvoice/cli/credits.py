"""The command `heartvoice credits`: prints a file's attribution, ready to publish."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from heartvoice.cli.options import JsonOption
from heartvoice.cli.output import print_lines
from heartvoice.errors import InvalidRequestError

_MANIFEST, _TAGS = "manifest", "tags"
_UNUSABLE = {"changed": "the file was changed since it was signed", "invalid": "it is damaged"}


@dataclass(frozen=True)
class Credits:
    """A file's attribution.

    Attributes:
        attribution: the text; "" if the file has none.
        source: where it was read, `manifest` or `tags`; "" if nowhere.
        signer: of the manifest.
        problem: why a manifest was not used.
    """

    attribution: str = ""
    source: str = ""
    signer: str = ""
    problem: str = ""


def credits_(
    *,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .wav, .flac, .mp3, .m4a or .ogg file.")],
    as_json: JsonOption = False,
) -> None:
    """Print what was generated in a file, by which models under which licences, and whose voice by which consent.

    The text is the manifest's, if the file is what was signed (extra `trust`), else that of its tags, which anybody
    can write. `heartvoice verify` says whether the signer is to be trusted.

    Exit codes: 0 printed, 1 the file has no attribution, 2 no audio file.
    """
    try:
        found = read_credits(file)
    except OSError as error:
        raise InvalidRequestError(f"{error.filename}: cannot be read: {error.strerror}") from error
    if as_json:
        typer.echo(json.dumps({"file": str(file), **asdict(found)}))
    elif found.attribution:
        print_lines([found.attribution], Console())
    print_lines(_remarks(file, found), Console(stderr=True))
    raise typer.Exit(0 if found.attribution else 1)


def read_credits(path: Path) -> Credits:
    """Read the attribution of a file out of its manifest or its tags.

    Raises:
        InvalidRequestError: it is no audio file, or too large.
        OSError: it cannot be read.
    """
    from heartvoice.audio.encode import read_tags
    from heartvoice.contracts.attribution import credits_of
    from heartvoice.contracts.constants import MAX_LOCAL_FILE_BYTES
    from heartvoice.contracts.field_checks import check_file_size
    from heartvoice.provenance.formats import container_of

    if path.exists() and not path.is_file():
        raise InvalidRequestError(f"file: expected a file, got {str(path)!r}, which is something else")
    with path.open("rb") as opened:
        if container_of(opened) is None:
            raise InvalidRequestError(f"file: expected WAV, FLAC, MP3, M4A or OGG, got something else: {str(path)!r}")
    check_file_size(f"file {path}", path.stat().st_size, MAX_LOCAL_FILE_BYTES)
    signed = _from_manifest(path)
    if signed.attribution:
        return signed
    text = credits_of(read_tags(path.read_bytes()).comment)
    return Credits(text, _TAGS if text else "", problem=signed.problem)


def _from_manifest(path: Path) -> Credits:
    if importlib.util.find_spec("c2pa") is None or importlib.util.find_spec("cryptography") is None:
        return Credits(problem="manifests are not read: the extra 'trust' is not installed")
    from heartvoice.provenance.verification import verify_file

    found = verify_file(path)
    if found.state in _UNUSABLE:
        return Credits(problem=f"its manifest is not used: {_UNUSABLE[found.state]}")
    text = found.facts.get("attribution")
    return Credits(" ".join(text.split()), _MANIFEST, found.signer) if isinstance(text, str) and text else Credits()


def _remarks(file: Path, found: Credits) -> list[str]:
    lines = [found.problem] if found.problem else []
    if not found.attribution:
        return [*lines, f"{file}: no attribution"]
    where = {
        _MANIFEST: f"from its manifest, signed by {found.signer}",
        _TAGS: "from its tags, which nothing vouches for",
    }
    return [*lines, where[found.source]]
