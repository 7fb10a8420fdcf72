"""`--voice`: a reference file with a consent text, or a registered voice with its consent record."""

from __future__ import annotations

import getpass
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from heartvoice.cli.options import read_voice, text_or_file
from heartvoice.client.recordings import Recording, as_recording
from heartvoice.contracts.field_checks import VOICE_LIMITS_S
from heartvoice.contracts.voice_ids import VOICE, is_id
from heartvoice.errors import InvalidRequestError
from heartvoice.optional_dependencies import require

REGISTRY_VARIABLE, OWNER_VARIABLE = "HEARTVOICE_REGISTRY", "HEARTVOICE_OWNER"
RegistryOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help=f"Of registered voices. Default: ${REGISTRY_VARIABLE}, else ~/.local/share/heartvoice.",
        rich_help_panel="Voice",
    ),
]
OwnerOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help=f"Of registered voices. Default: ${OWNER_VARIABLE}, else the user's name.",
        rich_help_panel="Voice",
    ),
]


@dataclass(frozen=True)
class SingingVoice:
    """A reference and the consent to its use; neither, if nobody was chosen."""

    recording: Recording | None = None
    consent: str = ""


def registry_folder(chosen: Path | None) -> Path:
    """Return the folder of the registry: the chosen one, $HEARTVOICE_REGISTRY, or `heartvoice` in the user's data."""
    if chosen is not None or os.environ.get(REGISTRY_VARIABLE):
        return chosen or Path(os.environ[REGISTRY_VARIABLE])
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "heartvoice"


def owner_name(chosen: str | None) -> str:
    """Return the owner: the chosen one, $HEARTVOICE_OWNER, or the user's name."""
    return chosen or os.environ.get(OWNER_VARIABLE) or getpass.getuser()


def singing_voice(voice: str, consent: str, registry: Path | None, owner: str | None) -> SingingVoice:
    """Read what `--voice` and `--consent` name.

    Args:
        voice: a file, "-", the id of a registered voice, or "" for none.
        consent: a text, @FILE or "-"; with a registered voice there is none, because its record says more.
        registry: of registered voices.
        owner: likewise.

    Raises:
        InvalidRequestError: a file cannot be read; the owner has no such voice, or it may not sing.
        ModelUnavailableError: a registered voice needs the extra `trust`.
        RegistryError: the registry is not what was written.
    """
    if not is_id(voice, VOICE) or Path(voice).exists():
        return SingingVoice(read_voice(voice) if voice else None, text_or_file("consent", consent))
    if consent:
        raise InvalidRequestError("consent: expected none beside a registered voice, whose record says who consents")
    require("trust", "cryptography")
    from heartvoice.voices.registry import Registry

    with Registry(registry_folder(registry)) as opened:
        found = opened.reference(owner_name(owner), voice)
    return SingingVoice(as_recording(found.file, field=voice, limits_s=VOICE_LIMITS_S), found.consent)
