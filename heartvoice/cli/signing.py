"""The choice of what signs written files: keys of a folder, or nothing."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from heartvoice.contracts.claims import ClaimSigner
from heartvoice.optional_dependencies import require

OFF = "off"
_DEFAULT = "Default: $HEARTVOICE_KEYS, else ~/.config/heartvoice/keys; without keys there, files are not signed."
ServerKeysOption = Annotated[
    str | None,
    typer.Option(
        "--keys",
        metavar=f"FOLDER|{OFF}",
        help=f"What signs the files of the model `render` (see `heartvoice keys`). {_DEFAULT}",
    ),
]
KeysOption = Annotated[
    str | None,
    typer.Option(
        "--keys",
        metavar=f"FOLDER|{OFF}",
        help=f"What signs the files (see `heartvoice keys`). {_DEFAULT}",
    ),
]
_MODULES = ("c2pa", "cryptography")


@dataclass(frozen=True)
class Signing:
    """What signs the files of a command; without a signer, `unsigned` says why."""

    signer: ClaimSigner | None
    unsigned: str = ""


@dataclass(frozen=True)
class KeysChoice:
    """A folder of keys; without one, `unsigned` says why."""

    folder: Path | None
    unsigned: str = ""


def open_signing(choice: str | None) -> Signing:
    """Open the keys of a folder, or those of the default folder if there are any, and sign a trial with them.

    So a locked token or an expired certificate is found before the work, not after it.

    Raises:
        InvalidRequestError: the chosen folder has no keys, or they are damaged or expired.
        EngineError: they do not sign.
        ModelUnavailableError: a folder was chosen, and the extra `trust` is not installed.
    """
    found = choose_keys(choice)
    if found.folder is None:
        return Signing(None, found.unsigned)
    from heartvoice.provenance.key_folder import load_keys
    from heartvoice.provenance.signer import ManifestSigner

    return Signing(ManifestSigner(load_keys(found.folder)))


def choose_keys(choice: str | None) -> KeysChoice:
    """Find the folder of keys that signs, and sign a trial with it.

    Raises:
        InvalidRequestError, EngineError, ModelUnavailableError: as `open_signing`.
    """
    if choice == OFF:
        return KeysChoice(None, f"--keys {OFF}")
    if choice is not None:
        require("trust", *_MODULES)
    elif any(importlib.util.find_spec(name) is None for name in _MODULES):
        return KeysChoice(None, "the extra 'trust' is not installed")
    from heartvoice.provenance.key_folder import default_folder, has_keys, load_keys, try_keys

    folder = default_folder() if choice is None else Path(choice)
    if choice is None and not has_keys(folder):
        return KeysChoice(None, f"no keys in {folder}; `heartvoice keys init` makes some")
    try_keys(load_keys(folder))
    return KeysChoice(folder)
