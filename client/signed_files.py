"""Encodes files with their manifests, where there is something to sign with."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from heartvoice.audio.encode import AudioFile, Spool
from heartvoice.client.atomic_files import AtomicFiles
from heartvoice.contracts.claims import Claim, ClaimSigner, sidecar_path


def encode_signed(
    files: AtomicFiles, spool: Spool, path: Path, *, peak: float, comment: str, claim: Claim, signer: ClaimSigner | None
) -> AudioFile:
    """Encode `spool` as the file that will be `path`, and sign it last: every later change breaks the signature.

    Args:
        files: take the file, and the manifest of an OGG beside it.
        spool: all samples.
        path: its ending is the format.
        peak: see `Spool.encode`.
        comment: the tag.
        claim: what the manifest says.
        signer: None leaves the file unsigned.

    Raises:
        EngineError: it could not be signed.
        OSError: naming `path`.
    """
    file_format, beside = path.suffix.lower().removeprefix("."), sidecar_path(path)
    if signer is None:
        with files.open(path) as file:
            audio = spool.encode(file, path, file_format, peak, comment)
        if file_format == "ogg":
            files.drop(beside)
        return audio
    with files.open(path) as file, tempfile.TemporaryFile(dir=path.parent) as unsigned:
        audio = spool.encode(unsigned, path, file_format, peak, comment)
        unsigned.seek(0)
        manifest = signer.sign(claim, file_format, unsigned, file, title=path.name)
    if manifest:
        with files.open(beside) as file:
            file.write(manifest)
    return replace(audio, signed=True)
