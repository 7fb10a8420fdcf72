"""The commands `heartvoice keys init` and `import`: what signs written files, and what marks their sound."""

from __future__ import annotations

import getpass
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from heartvoice.errors import InvalidRequestError
from heartvoice.optional_dependencies import require

app = typer.Typer(no_args_is_help=True, help="Make or import the keys that sign what is written.")
FolderOption = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Default: $HEARTVOICE_KEYS, else ~/.config/heartvoice/keys."),
]


@app.callback()
def _group() -> None:
    require("trust", "c2pa", "cryptography")


@app.command()
def init(
    folder: FolderOption = None,
    organisation: Annotated[
        str | None, typer.Option(metavar="NAME", help="Named in the certificates. Default: the user's name.")
    ] = None,
) -> None:
    """Make a local certificate authority, a signing certificate of it and a watermark key, unless they are there.

    Files get mode 0600. Nothing is overwritten.

    With FOLDER/watermark.key a server marks its songs: heartvoice serve --watermark-key FOLDER/watermark.key

    Others trust what it signs if they are given FOLDER/anchors.pem: heartvoice verify song.wav --anchors anchors.pem
    """
    from heartvoice.provenance.key_folder import default_folder, init_keys

    place = folder or default_folder()
    name = getpass.getuser() if organisation is None else organisation.strip()
    if not 1 <= len(name) <= 64 or not name.isprintable():
        raise InvalidRequestError(f"organisation: expected 1 to 64 printable characters, got {name!r}")
    made = init_keys(place, name)
    typer.echo(f"{place}: {'a local CA and a signing certificate' if made else 'keys are there already'}")
    _make_watermark_key(place)


@app.command("import")
def import_(
    certificate: Annotated[Path, typer.Option(metavar="PEM", help="The chain, signing certificate first.")],
    key: Annotated[Path | None, typer.Option(metavar="PEM", help="Its private key, without a passphrase.")] = None,
    agent: Annotated[
        str,
        typer.Option(metavar="COMMAND", help="Signs in place of a key: message on stdin, raw signature on stdout."),
    ] = "",
    anchors: Annotated[
        Path | None, typer.Option(metavar="PEM", help="Roots for `heartvoice verify`. Default: the chain's last.")
    ] = None,
    folder: FolderOption = None,
) -> None:
    """Sign with a certificate of your own, by its key or by a command that asks an HSM or agent.

    C2PA accepts certificates with extended key usage emailProtection and key usage digitalSignature. A trial is signed
    and read back before anything is kept.

    An agent's ECDSA signatures are r || s, its RSA signatures PSS with SHA-256.
    """
    from heartvoice.provenance.key_folder import default_folder, import_keys

    if (key is None) == (not agent):
        raise InvalidRequestError("key: expected either --key or --agent")
    place = folder or default_folder()
    import_keys(
        place,
        chain=certificate.read_bytes(),
        key=None if key is None else key.read_bytes(),
        agent=agent,
        anchors=None if anchors is None else anchors.read_bytes(),
    )
    typer.echo(f"{place}: the certificate signs from now on")
    _make_watermark_key(place)


def _make_watermark_key(folder: Path) -> None:
    """Make the key of the watermark, unless it is there: without the old one its marks are lost."""
    from heartvoice.watermark.keys import KEY_FILE, make_key

    path = folder / KEY_FILE
    with suppress(FileExistsError):
        make_key(path)
        typer.echo(f"{path}: a key that marks songs, and finds them again")
