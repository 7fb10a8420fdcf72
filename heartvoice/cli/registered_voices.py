"""`--voice`: a reference file with a consent text, or a registered voice with its consent record."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from heartvoice.cli.options import read_voice, text_or_file
from heartvoice.client.recordings import Recording
from heartvoice.client.registered_voices import (
    OWNER_VARIABLE,
    REGISTRY_VARIABLE,
    RegisteredVoice,
    as_registered,
    has_registry,
    look_up,
)

RegistryOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help=f"Of registered voices. Default: ${REGISTRY_VARIABLE}, else ~/.local/share/heartvoice. Without any, a song"
        " or cover sends the voice's id to the server, a gateway that has it.",
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
    """A voice and the consent to its use; neither, if nobody was chosen. An id alone is for a gateway to resolve."""

    voice: Recording | RegisteredVoice | None = None
    consent: str = ""


def singing_voice(
    voice: str, consent: str, registry: Path | None, owner: str | None, *, gateway: bool = True
) -> SingingVoice:
    """Read what `--voice` and `--consent` name.

    Args:
        voice: a file, "-", the id of a registered voice, or "" for none.
        consent: a text, @FILE or "-"; with a registered voice there is none, because its record says more.
        registry: of registered voices.
        owner: likewise.
        gateway: without a registry here, the server may know the voice.

    Raises:
        InvalidRequestError: a file cannot be read; the owner has no such voice, or it may not sing.
        ModelUnavailableError: a registered voice needs the extra `trust`.
        RegistryError: the registry is not what was written.
    """
    registered = as_registered(voice)
    if registered is None:
        return SingingVoice(read_voice(voice) if voice else None, text_or_file("consent", consent))
    if gateway and not has_registry(registry):
        return SingingVoice(registered, consent)  # the contract refuses a consent beside an id
    return SingingVoice(*look_up(registered, consent, registry, owner))
