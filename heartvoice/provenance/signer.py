"""Signs written files: a manifest inside them, or beside them where the format has no place for it."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import IO

import c2pa

from heartvoice.contracts.claims import Claim, Making
from heartvoice.errors import EngineError, HeartvoiceError
from heartvoice.provenance.certificates import Sign
from heartvoice.provenance.formats import MEDIA_TYPES, SIDECAR_ONLY, container_of
from heartvoice.provenance.keys import Keys
from heartvoice.provenance.library import offline
from heartvoice.provenance.manifest import definition

_LONGEST_REASON = 200


class ManifestSigner:
    """Signs with the operator's keys; a `ClaimSigner`. Threads may share it."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def sign(self, claim: Claim, file_format: str, source: IO[bytes], target: IO[bytes], *, title: str) -> bytes:
        """See `ClaimSigner`.

        Raises:
            EngineError: the library or an agent failed.
            OSError: `target` could not be written.
        """
        # A thread, because the library calls back into Python, where an interrupt would be lost.
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(self._sign, claim, file_format, source, target, title).result()

    def _sign(self, claim: Claim, file_format: str, source: IO[bytes], target: IO[bytes], title: str) -> bytes:
        beside, media_type = file_format in SIDECAR_ONLY, MEDIA_TYPES[file_format]
        sink, failures = _Sink(target), _Failures(self._keys.sign)
        try:
            made = definition(claim, media_type=media_type, title=title, voice_key=self._keys.voice_key)
            with offline(self._keys.anchors) as context, c2pa.Builder.from_json(made, context) as builder:
                _add_recording(builder, claim)
                if beside:
                    builder.set_no_embed()
                with self._signer(failures) as signer:
                    manifest = builder.sign(signer, media_type, source, io.BytesIO() if beside else sink)
        except c2pa.C2paError as error:
            failures.check()
            sink.check()
            raise EngineError(f"provenance: {title} could not be signed: {error}") from error
        sink.check()
        if not beside:
            return b""
        source.seek(0)
        while block := source.read(1 << 20):
            target.write(block)
        return bytes(manifest)

    def _signer(self, sign: Callable[[bytes], bytes]) -> c2pa.Signer:
        algorithm = c2pa.C2paSigningAlg[self._keys.algorithm]
        return c2pa.Signer.from_callback(sign, algorithm, self._keys.chain.decode("ascii"))


def _add_recording(builder: c2pa.Builder, claim: Claim) -> None:
    """Add what the sound was made from, with the manifest that it carries, if it does."""
    if claim.making is Making.CREATED:
        return
    builder.set_intent(c2pa.C2paBuilderIntent.EDIT)  # adds the action "opened" for the parent
    tags, data = claim.source.tags, claim.source.file or b""
    ingredient = {"title": tags.title or "recording", "relationship": "parentOf"}
    by = f"by {tags.artist}" if tags.artist else ""
    if by:
        ingredient["description"] = by
    container = container_of(io.BytesIO(data))
    if container is not None and container not in SIDECAR_ONLY:
        try:
            builder.add_ingredient(ingredient, MEDIA_TYPES[container], io.BytesIO(data))
            return
        except c2pa.C2paError as error:  # a damaged container that a decoder could read, or a manifest elsewhere
            unread = f"its own manifest could not be read: {error}"[:_LONGEST_REASON]
            ingredient["description"] = f"{by}; {unread}" if by else unread
    if data:
        ingredient |= {"instance_id": f"urn:sha256:{hashlib.sha256(data).hexdigest()}"}
    builder.add_ingredient(ingredient, "application/octet-stream", io.BytesIO(data))


class _Failures:
    """A signature that keeps its error, which cannot cross the library."""

    def __init__(self, sign: Sign) -> None:
        self._sign = sign
        self._error: Exception | None = None

    def __call__(self, message: bytes) -> bytes:
        try:
            return self._sign(message)
        except Exception as error:
            self._error = error
            raise

    def check(self) -> None:
        """Raise the kept error, if any."""
        if isinstance(self._error, HeartvoiceError):
            raise self._error
        if self._error is not None:
            raise EngineError(f"provenance: the signature failed: {self._error}") from self._error


class _Sink(io.RawIOBase):
    """A file for the library that keeps its error, which cannot cross its callbacks."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self._file = file
        self._error: OSError | None = None

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def write(self, data: bytes) -> int:  # type: ignore[override]
        try:
            return self._file.write(data)
        except OSError as error:
            self._error = error
            raise

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return self._file.seek(offset, whence)  # flushes
        except OSError as error:
            self._error = error
            raise

    def tell(self) -> int:
        return self._file.tell()

    def flush(self) -> None:
        if not self.closed and self._error is None:
            self._file.flush()

    def check(self) -> None:
        """Raise the kept error, if any."""
        if self._error is not None:
            raise self._error
