"""Registered voices by their ids: a gateway knows them, or a registry of one's own does."""

from __future__ import annotations

import getpass
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heartvoice.client.recordings import Recording, as_recording
from heartvoice.contracts.field_checks import VOICE_LIMITS_S
from heartvoice.contracts.tensors import VOICE_ID
from heartvoice.contracts.voice_ids import VOICE, is_id
from heartvoice.errors import InvalidRequestError
from heartvoice.optional_dependencies import require

REGISTRY_VARIABLE, OWNER_VARIABLE = "HEARTVOICE_REGISTRY", "HEARTVOICE_OWNER"


@dataclass(frozen=True)
class RegisteredVoice:
    """A voice of a registry, which has its reference and the record of its consent."""

    id: str

    def inputs(self) -> dict[str, NDArray[Any]]:
        """The tensor that names it."""
        return {VOICE_ID.name: np.array([self.id.encode()], dtype=object)}


def as_registered(voice: object) -> RegisteredVoice | None:
    """Return the registered voice that a text names; None if it is none, or a file has that name."""
    if isinstance(voice, RegisteredVoice):
        return voice
    if isinstance(voice, str) and is_id(voice, VOICE) and not Path(voice).exists():
        return RegisteredVoice(voice)
    return None


def registry_folder(chosen: str | Path | None) -> Path:
    """Return the folder of the registry: the chosen one, $HEARTVOICE_REGISTRY, or `heartvoice` in the user's data."""
    if chosen is not None or os.environ.get(REGISTRY_VARIABLE):
        return Path(chosen or os.environ[REGISTRY_VARIABLE])
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "heartvoice"


def has_registry(chosen: str | Path | None) -> bool:
    """Return True if a registry of one's own was chosen, or the default one is there."""
    from heartvoice.voices.database import FILE

    return chosen is not None or REGISTRY_VARIABLE in os.environ or (registry_folder(None) / FILE).is_file()


def owner_name(chosen: str | None) -> str:
    """Return the owner: the chosen one, $HEARTVOICE_OWNER, or the user's name."""
    return chosen or os.environ.get(OWNER_VARIABLE) or getpass.getuser()


def look_up(
    voice: RegisteredVoice, consent: str, registry: str | Path | None, owner: str | None
) -> tuple[Recording, str]:
    """Return a voice's reference, and the consent text that names its record.

    Args:
        voice: of the registry.
        consent: of the caller; there is none, because the record says more.
        registry: see `registry_folder`.
        owner: see `owner_name`.

    Raises:
        InvalidRequestError: there is a consent text; the owner has no such voice, or it may not sing.
        ModelUnavailableError: the extra `trust` is missing.
        RegistryError: the registry is not what was written.
    """
    if consent:
        raise InvalidRequestError("consent: expected none beside a registered voice, whose record says who consents")
    require("trust", "cryptography")
    from heartvoice.voices.registry import Registry

    with Registry(registry_folder(registry)) as opened:
        found = opened.reference(owner_name(owner), voice.id)
    return as_recording(found.file, field=voice.id, limits_s=VOICE_LIMITS_S), found.consent
