"""Encodes files with their manifests, where there is something to sign with. A failed signature loses no sound."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from heartvoice.audio.encode import AudioFile, Spool
from heartvoice.client.atomic_files import AtomicFiles
from heartvoice.contracts.claims import Claim, ClaimSigner, sidecar_path
from heartvoice.contracts.provenance import Tags
from heartvoice.errors import HeartvoiceError, SigningError


def encode_signed(
    files: AtomicFiles, spool: Spool, path: Path, *, peak: float, tags: Tags, claim: Claim, signer: ClaimSigner | None
) -> AudioFile:
    """Encode `spool` as the file that will be `path`, and sign it last: every later change breaks the signature.

    If the signature fails, the file stays as it is without one, and its `not_signed` says why.

    Args:
        files: take the file, and the manifest of an OGG beside it.
        spool: all samples.
        path: its ending is the format.
        peak: see `Spool.encode`.
        tags: of the file.
        claim: what the manifest says.
        signer: None leaves the file unsigned.

    Raises:
        OSError: naming `path`.
    """
    file_format = path.suffix.lower().removeprefix(".")
    with files.open(path) as file:
        audio = spool.encode(file, path, file_format, peak, tags)
    failure = ""
    if signer is not None:
        try:
            _sign(files, path, file_format, claim, signer)
            return replace(audio, signed=True)
        except Exception as error:  # of the disk, an agent or the library: none may cost the song
            failure = reason_of(error)
    if file_format == "ogg":
        files.drop(sidecar_path(path))
    return replace(audio, not_signed=failure)


def _sign(files: AtomicFiles, path: Path, file_format: str, claim: Claim, signer: ClaimSigner) -> None:
    with files.exchange(path) as (unsigned, signed):
        manifest = signer.sign(claim, file_format, unsigned, signed, title=path.name)
    if manifest:
        with files.open(sidecar_path(path)) as file:
            file.write(manifest)


def reason_of(error: Exception) -> str:
    """Return why a signature failed, in one line; with its type if nobody foresaw the error."""
    text = " ".join(str(error).split())
    return text if isinstance(error, HeartvoiceError | OSError) and text else f"{type(error).__name__}: {text}"


def check_signed(files: Iterable[AudioFile]) -> None:
    """Raise if one of the written files has no signature that it was to have.

    Raises:
        SigningError: names the first such file, and why.
    """
    for file in files:
        if file.not_signed:
            raise SigningError(f"{file.path}: written, but NOT signed: {file.not_signed}")
