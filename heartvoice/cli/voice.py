"""The commands `heartvoice voice ...`: a registry of voices whose owners agreed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from heartvoice.cli.options import (
    CertificateChainOption,
    JsonOption,
    PrivateKeyOption,
    RootCertificatesOption,
    TlsOption,
)
from heartvoice.cli.output import print_lines
from heartvoice.cli.registered_voices import OwnerOption, RegistryOption
from heartvoice.client.recordings import read_file
from heartvoice.client.voices import Voices
from heartvoice.contracts.constants import WATERMARK_KEY_VARIABLE
from heartvoice.optional_dependencies import require

if TYPE_CHECKING:
    from heartvoice.voices.records import VoiceRecord, VoiceStatus

app = typer.Typer(no_args_is_help=True, help="Enrol voices whose owners agreed, revoke and purge them.")
VoiceArgument = Annotated[str, typer.Argument(metavar="VOICE", help="Its id: voice_...")]


@app.callback()
def _group() -> None:
    require("trust", "cryptography")


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

    made = Voices(registry, owner).consent(speaker=speaker, purpose=purpose, service=service, locale=locale)
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
    from heartvoice.judges.voice_checks import open_voice_checks

    checks = partial(
        open_voice_checks,
        weights=weights,
        lyric_model=lyric_model,
        watermark_key=watermark_key,
        allow_marked=allow_marked,
    )
    files = [read_file(phrase, "--phrase"), *(read_file(each, "--reference") for each in reference)]
    made = Voices(registry, owner).enrol(consent_id, files[0], files[1:], checks, tries_per_hour=tries_per_hour)
    _print(made, as_json=as_json)


@app.command("list")
def list_(registry: RegistryOption = None, owner: OwnerOption = None, as_json: JsonOption = False) -> None:
    """List the voices of an owner."""
    voices = Voices(registry, owner)
    found = voices.list()
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in found]))
    print_lines((_line(each) for each in found), Console(stderr=as_json))
    if not found:
        print_lines([f"{voices.owner} has no voice here"], Console(stderr=True))


@app.command()
def show(
    voice: VoiceArgument, registry: RegistryOption = None, owner: OwnerOption = None, as_json: JsonOption = False
) -> None:
    """Show a voice's consent record, or the tombstone of a purged one, and check them."""
    _print(Voices(registry, owner).show(voice), as_json=as_json)


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
    _print(Voices(registry, owner).approve(voice, by=by, why=why), as_json=as_json)


@app.command()
def revoke(
    voice: VoiceArgument, registry: RegistryOption = None, owner: OwnerOption = None, as_json: JsonOption = False
) -> None:
    """End the use of a voice. Its record and recordings stay as evidence until it is purged."""
    status = Voices(registry, owner).revoke(voice)
    if as_json:
        typer.echo(json.dumps(asdict(status)))
    print_lines([_line(status)], Console(stderr=as_json))


@app.command()
def purge(
    voice: VoiceArgument,
    url: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST:PORT",
            help="A server that shall forget the voice first; may be repeated. Not a gateway: the server behind it.",
            rich_help_panel="Server",
        ),
    ] = None,
    tls: TlsOption = False,
    root_certificates: RootCertificatesOption = None,
    private_key: PrivateKeyOption = None,
    certificate_chain: CertificateChainOption = None,
    registry: RegistryOption = None,
    owner: OwnerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Destroy a voice's key, recordings and record; a signed tombstone stays.

    With --url the voice is revoked first, and the server drops what it has computed of it. If that fails, the voice
    stays revoked and is not purged. Without, a server that runs keeps features in its memory until it stops.

    It does not reach copies elsewhere: backups, exports and songs.
    """
    forget = None
    if url:
        forget = _forgetting(
            url, tls=tls, root_certificates=root_certificates, private_key=private_key,
            certificate_chain=certificate_chain,
        )  # fmt: skip
    _print(Voices(registry, owner, forget=forget).purge(voice), as_json=as_json)


def _forgetting(urls: list[str], **connection: Any) -> Callable[[bytes], None]:
    """Return what has all servers forget the voice of a reference."""
    from heartvoice.client.sync import Client

    def forget(reference: bytes) -> None:
        for url in urls:
            with Client(url, **connection) as client:
                client.forget_voice(reference)

    return forget


@app.command()
def export(
    voice: VoiceArgument,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE.zip", help="An existing file is replaced.")],
    registry: RegistryOption = None,
    owner: OwnerOption = None,
) -> None:
    """Write all that is kept of a voice into a ZIP of mode 0600, for the person whose voice it is."""
    files = Voices(registry, owner).export(voice, output)
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
