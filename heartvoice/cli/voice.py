"""The commands `heartvoice voice ...`: a registry of voices whose owners agreed."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from heartvoice.cli.options import JsonOption
from heartvoice.cli.output import print_lines
from heartvoice.cli.registered_voices import OwnerOption, RegistryOption
from heartvoice.client.registered_voices import owner_name, registry_folder
from heartvoice.contracts.constants import WATERMARK_KEY_VARIABLE
from heartvoice.errors import InvalidRequestError
from heartvoice.optional_dependencies import require
from heartvoice.secret_files import replace_secret

if TYPE_CHECKING:
    from heartvoice.voices.records import VoiceRecord, VoiceStatus
    from heartvoice.voices.registry import Registry

app = typer.Typer(no_args_is_help=True, help="Enrol voices whose owners agreed, revoke and purge them.")
VoiceArgument = Annotated[str, typer.Argument(metavar="VOICE", help="Its id: voice_...")]


@app.callback()
def _group() -> None:
    require("trust", "cryptography")


def _open(chosen: Path | None, *, create: bool = False, tries_per_hour: int | None = None) -> Registry:
    from heartvoice.voices.limits import Limits
    from heartvoice.voices.registry import Registry

    limits = Limits() if tries_per_hour is None else Limits(tries_per_hour=tries_per_hour)
    return Registry(registry_folder(chosen), create=create, limits=limits)


@app.command()
def consent(
    speaker: Annotated[str, typer.Option(metavar="NAME", help="The person whose voice it is.")],
    purpose: Annotated[str, typer.Option(metavar="TEXT", help="What the voice is for.")],
    service: Annotated[str, typer.Option(metavar="NAME", help="Who makes the songs.")] = "heartvoice",
    locale: Annotated[str, typer.Option(metavar="en|de|es|fr", help="Language of the text.")] = "en",
    registry: RegistryOption = None,
    owner: OwnerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask for a consent: a text to be read aloud, valid for ten minutes and one try.

    The first one makes the registry and its keys. Keep the keys apart from it: in $HEARTVOICE_REGISTRY_KEYS, else
    ~/.config/heartvoice/voices.
    """
    from heartvoice.voices.records import utc

    with _open(registry, create=True) as opened:
        made = opened.consent(owner_name(owner), speaker=speaker, purpose=purpose, service=service, locale=locale)
    if as_json:
        typer.echo(json.dumps(asdict(made)))
    lines = [
        f"{made.id}, valid until {utc(made.expires_s)}", "have this read aloud by the person and recorded:", "",
        made.text, "", f"then: heartvoice voice enrol {made.id} --phrase phrase.wav --reference voice.wav",
    ]  # fmt: skip
    print_lines(lines, Console(stderr=as_json))


@app.command()
def enrol(
    consent_id: Annotated[str, typer.Argument(metavar="CONSENT", help="Its id: consent_...")],
    phrase: Annotated[Path, typer.Option(metavar="FILE", help="A recording in which the text is read.")],
    reference: Annotated[
        list[Path], typer.Option(metavar="FILE", help="3 to 60 s of the voice; may be repeated. The first one sings.")
    ],
    weights: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of `weights pull`, for the second judge of voices.")
    ] = None,
    lyric_model: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A Whisper in CTranslate2's format, for other languages.")
    ] = None,
    watermark_key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            envvar=WATERMARK_KEY_VARIABLE,
            show_envvar=False,
            help="Refuse recordings that carry the mark of this key: a server made them. "
            f"Default: ${WATERMARK_KEY_VARIABLE}; without, nobody looks.",
        ),
    ] = None,
    allow_marked: Annotated[
        bool, typer.Option("--allow-marked", help="Leave recordings with the mark to the operator: `unverified`.")
    ] = False,
    tries_per_hour: Annotated[int, typer.Option(min=1, help="What an owner may try in an hour.")] = 5,
    registry: RegistryOption = None,
    owner: OwnerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Enrol a voice by its consent, if the recordings pass the checks.

    Somebody speaks, says the text, is alone, and has the voice of the references; no recording says that it is
    AI-generated, or carries the operator's watermark. What cannot be decided makes the voice `unverified`: it does not
    sing until it is approved.

    The consent is used up, whatever comes of it. It needs the extras `evaluate` and `trust`.
    """
    require("evaluate", "onnx", "onnxruntime", "ctranslate2", "tokenizers", "rapidfuzz", "soxr", "num2words")
    from heartvoice.cli.voice_checks import open_voice_checks
    from heartvoice.client.recordings import read_file

    name = owner_name(owner)
    files = [read_file(phrase, "--phrase"), *(read_file(each, "--reference") for each in reference)]
    with _open(registry, tries_per_hour=tries_per_hour) as opened:
        locale = opened.open_consent(name, consent_id).locale  # before anything is fetched
        checks = open_voice_checks(
            locale, weights=weights, lyric_model=lyric_model, watermark_key=watermark_key, allow_marked=allow_marked
        )
        made = opened.enrol(name, consent_id, files[0], files[1:], checks)
    _print(made, as_json=as_json)


@app.command("list")
def list_(registry: RegistryOption = None, owner: OwnerOption = None, as_json: JsonOption = False) -> None:
    """List the voices of an owner."""
    with _open(registry) as opened:
        found = opened.voices(owner_name(owner))
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in found]))
    print_lines((_line(each) for each in found), Console(stderr=as_json))
    if not found:
        print_lines([f"{owner_name(owner)} has no voice here"], Console(stderr=True))


@app.command()
def show(
    voice: VoiceArgument, registry: RegistryOption = None, owner: OwnerOption = None, as_json: JsonOption = False
) -> None:
    """Show a voice's consent record, or the tombstone of a purged one, and check them."""
    with _open(registry) as opened:
        _print(opened.voice(owner_name(owner), voice), as_json=as_json)


@app.command()
def approve(
    voice: VoiceArgument,
    by: Annotated[str, typer.Option(metavar="NAME", help="Who approves.")],
    why: Annotated[str, typer.Option(metavar="TEXT", help="What they know, such as: heard it read, saw a passport.")],
    registry: RegistryOption = None,
    owner: OwnerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let an unverified voice sing, on the word of a person whom the record names."""
    with _open(registry) as opened:
        _print(opened.approve(owner_name(owner), voice, by=by, why=why), as_json=as_json)


@app.command()
def revoke(
    voice: VoiceArgument, registry: RegistryOption = None, owner: OwnerOption = None, as_json: JsonOption = False
) -> None:
    """End the use of a voice. Its record and recordings stay as evidence until it is purged."""
    with _open(registry) as opened:
        status = opened.revoke(owner_name(owner), voice)
    if as_json:
        typer.echo(json.dumps(asdict(status)))
    print_lines([_line(status)], Console(stderr=as_json))


@app.command()
def purge(
    voice: VoiceArgument, registry: RegistryOption = None, owner: OwnerOption = None, as_json: JsonOption = False
) -> None:
    """Destroy a voice's key, recordings and record; a signed tombstone stays.

    It does not reach copies elsewhere: backups, exports, songs, and the memory of servers that run.
    """
    with _open(registry) as opened:
        _print(opened.purge(owner_name(owner), voice), as_json=as_json)


@app.command()
def export(
    voice: VoiceArgument,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE.zip", help="An existing file is replaced.")],
    registry: RegistryOption = None,
    owner: OwnerOption = None,
) -> None:
    """Write all that is kept of a voice into a ZIP of mode 0600, for the person whose voice it is."""
    if output.suffix.lower() != ".zip":
        raise InvalidRequestError(f"output: expected a name ending in .zip, got {str(output)!r}")
    with _open(registry) as opened:
        files = opened.export(owner_name(owner), voice)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    replace_secret(output, packed.getvalue())
    print_lines([f"{output}: {', '.join(files)}"], Console())


def _line(status: VoiceStatus) -> str:
    from heartvoice.voices.records import utc

    return f"{status.id}  {status.state}  since {utc(status.changed_s)}  {status.consent}"


def _print(made: VoiceRecord, *, as_json: bool) -> None:
    if as_json:
        told: dict[str, Any] = {**asdict(made.status), "record": made.record or None}
        told |= {"signed": made.content.decode(), "signature": made.signature.hex()}
        typer.echo(json.dumps(told))
    print_lines(_lines(made), Console(stderr=as_json))


def _lines(made: VoiceRecord) -> Iterable[str]:
    yield _line(made.status)
    record = made.record
    if not record:
        yield f"signed tombstone: {made.content.decode()}" if made.content else "its enrolment was not finished"
        return
    yield f"{record['speaker']}, for {record['service']}: {record['purpose']}"
    yield f"read: {record['text']}"
    yield f"heard: {record['transcript'] or 'nobody listened'}"
    for each in record["checks"]:
        said = {True: "passed", False: "failed", None: "undecided"}[each["passed"]]
        yield f"{each['check']}: {said}: {each['detail']}"
    if record["approval"]:
        yield f"approved by {record['approval']['by']}: {record['approval']['why']}"
    yield f"signed on {record['enrolled']}; the signature is right, and the log names this record"
