"""The choice of what signs written files: keys of a folder, or nothing."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from heartvoice.cli.optional_dependencies import require
from heartvoice.contracts.claims import ClaimSigner

OFF = "off"
KeysOption = Annotated[
    str | None,
    typer.Option(
        "--keys",
        metavar=f"FOLDER|{OFF}",
        help="What signs the files (see `heartvoice keys`). Default: $HEARTVOICE_KEYS, else ~/.config/heartvoice/keys; "
        "without keys there, files are not signed.",
    ),
]
_MODULES = ("c2pa", "cryptography")


@dataclass(frozen=True)
class Signing:
    """What signs the files of a command; without a signer, `unsigned` says why."""

    signer: ClaimSigner | None
    unsigned: str = ""


def open_signing(choice: str | None) -> Signing:
    """Open the keys of a folder, or those of the default folder if there are any, and sign a trial with them.

    So a locked token or an expired certificate is found before the work, not after it.

    Raises:
        InvalidRequestError: the chosen folder has no keys, or they are damaged or expired.
        EngineError: they do not sign.
        ModelUnavailableError: a folder was chosen, and the extra `trust` is not installed.
    """
    if choice == OFF:
        return Signing(None, f"--keys {OFF}")
    if choice is not None:
        require("trust", *_MODULES)
    elif any(importlib.util.find_spec(name) is None for name in _MODULES):
        return Signing(None, "the extra 'trust' is not installed")
    from heartvoice.provenance.key_folder import default_folder, has_keys, load_keys, try_keys
    from heartvoice.provenance.signer import ManifestSigner

    folder = default_folder() if choice is None else Path(choice)
    if choice is None and not has_keys(folder):
        return Signing(None, f"no keys in {folder}; `heartvoice keys init` makes some")
    keys = load_keys(folder)
    try_keys(keys)
    return Signing(ManifestSigner(keys))
