"""The server's own signature: what `render` encodes is signed with the operator's keys."""

from __future__ import annotations

import base64
import logging
import os
from pathlib import Path
from typing import Any

from heartvoice.contracts.claims import Claim, ClaimSigner
from heartvoice.contracts.constants import SIGNING_KEYS_VARIABLE
from heartvoice.errors import HeartvoiceError
from heartvoice.redaction import traceback_without_messages

log = logging.getLogger(__name__)


def open_signer() -> ClaimSigner | None:
    """Open the keys that the server was started with; None without any.

    Raises:
        InvalidRequestError: they are damaged or expired.
        OSError: they cannot be read.
    """
    folder = os.environ.get(SIGNING_KEYS_VARIABLE)
    if not folder:
        return None
    from heartvoice.provenance.key_folder import load_keys
    from heartvoice.provenance.signer import ManifestSigner

    return ManifestSigner(load_keys(Path(folder)))


def sign_file(path: Path, file_format: str, claim: Claim, signer: ClaimSigner | None) -> tuple[Path, dict[str, Any]]:
    """Sign an encoded file; if that fails, it stays as it is, the report says so, and the log says why.

    Args:
        path: the file, in a folder of the job's own.
        file_format: of it.
        claim: what the manifest says.
        signer: None leaves the file unsigned.

    Returns:
        The file to send, and fields of the report: `signed`, and `unsigned_because` or, for an OGG, `manifest`.
    """
    if signer is None:
        return path, {"signed": False, "unsigned_because": "the server was started without keys"}
    signed = path.with_name(f"signed.{file_format}")
    try:
        with path.open("rb") as source, signed.open("x+b") as target:
            manifest = signer.sign(claim, file_format, source, target, title=path.name)
    except Exception as error:  # of the disk, an agent or the library: none may cost the song
        known = isinstance(error, HeartvoiceError | OSError)  # of an agent, with nothing of the job in it
        log.error("render: a file is not signed: %s", error if known else traceback_without_messages(error))
        return path, {"signed": False, "unsigned_because": "the server's signature failed"}
    beside = {"manifest": base64.b64encode(manifest).decode()} if manifest else {}
    return signed, {"signed": True, **beside}
