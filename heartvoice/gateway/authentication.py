"""Identifies callers by hashed bearer tokens or by the names in client certificates."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import secrets
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from heartvoice.errors import InvalidRequestError, UnauthenticatedError

log = logging.getLogger(__name__)

TOKEN_PREFIX = "heartvoice_"  # noqa: S105 (not a token)
"""Prefix by which scanners for leaked secrets recognise a token."""
ANONYMOUS = "anonymous"
"""Name of every caller of a gateway without authentication."""
_TOKEN_BYTES = 32
_NAME = re.compile(r"[A-Za-z0-9_.@:/-]{1,64}")
_HASH = re.compile(r"[0-9a-f]{64}")
_SCHEME = "bearer "


class Tokens:
    """A file of callers: `name sha256-of-the-token` in each line; # begins a comment; a name may have several.

    The file has only hashes, and tokens are 256 random bits, so a reader of the file learns only names. A writer of the
    file can admit callers, so a file that other users may write is refused.
    """

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            InvalidRequestError: it cannot be read, others may write it, or a line is wrong.
        """
        self.path = path
        self._seen: tuple[int, ...] = ()
        self._callers: list[tuple[str, bytes]] = []
        self._read()

    @property
    def names(self) -> list[str]:
        """The distinct names of the callers."""
        return sorted({name for name, _ in self._callers})

    def reload(self, *, forced: bool = False) -> None:
        """Read the file again if it has changed; an invalid file is logged and ignored."""
        try:
            if forced or _version(self.path) != self._seen:
                self._read()
                log.info("read %s: %d callers", self.path, len(self.names))
        except (InvalidRequestError, OSError) as error:
            log.error("callers stay as they were: %s", error)

    def caller(self, metadata: Sequence[tuple[str, str | bytes]]) -> str:
        """Return the caller that sent these headers.

        Raises:
            UnauthenticatedError: no token, several, or an unknown one.
        """
        headers = [value for key, value in metadata if key == "authorization"]
        if len(headers) != 1 or not isinstance(headers[0], str) or not headers[0].lower().startswith(_SCHEME):
            raise UnauthenticatedError("authorization: expected one header, Bearer and a token")
        digest = hashlib.sha256(headers[0][len(_SCHEME) :].strip().encode()).digest()
        found = ""
        for name, known in self._callers:  # compare with all of them, so that the time reveals nothing
            if hmac.compare_digest(known, digest):
                found = name
        if not found:
            raise UnauthenticatedError("authorization: the token is not known here")
        return found

    def _read(self) -> None:
        self._seen = _version(self.path)  # before its lines, so that a later change is noticed
        try:
            text = self.path.read_text(encoding="utf-8")
            mode = self.path.stat().st_mode
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidRequestError(f"tokens: cannot read {str(self.path)!r}: {error}") from error
        if mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise InvalidRequestError(
                f"tokens: expected {str(self.path)!r} to be writable by its owner alone, got mode {mode & 0o777:o}; "
                "chmod go-w it"
            )
        self._callers = _parse(self.path, text)


def _version(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()
    except OSError as error:
        raise InvalidRequestError(f"tokens: cannot read {str(path)!r}: {error.strerror}") from error
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_mode


def _parse(path: Path, text: str) -> list[tuple[str, bytes]]:
    callers = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) != 2 or not _NAME.fullmatch(words[0]) or not _HASH.fullmatch(words[1]):
            # Never the line itself, because it may contain a token.
            raise InvalidRequestError(f"tokens: {path}, line {number}: expected a name and the sha256 of its token")
        callers.append((words[0], bytes.fromhex(words[1])))
    if not callers:
        raise InvalidRequestError(f"tokens: {path}: expected at least one caller, got none")
    return callers


def add_token(path: Path, name: str) -> str:
    """Make a token for a caller, add its hash to the file (created if missing) and return the token.

    Raises:
        InvalidRequestError: the name has characters that are not allowed in a log.
    """
    if not _NAME.fullmatch(name):
        raise InvalidRequestError(f"name: expected 1 to 64 letters, digits or any of _.@:/- , got {name[:80]!r}")
    token = TOKEN_PREFIX + secrets.token_urlsafe(_TOKEN_BYTES)
    line = f"{name} {hashlib.sha256(token.encode()).hexdigest()}\n"
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(handle, "ab") as file:
        begun = file.tell() and not path.read_bytes().endswith(b"\n")
        file.write(b"\n" * bool(begun) + line.encode())
    return token


def certificate_name(peer: Mapping[str, Sequence[bytes]]) -> str:
    """Return a verified client certificate's caller: its URI, else its common name, else another name.

    Raises:
        UnauthenticatedError: it has no name.
    """
    for key in ("x509_uri", "x509_common_name", "x509_subject_alternative_name"):
        for value in peer.get(key, ()):
            name = value.decode("utf-8", "replace")
            if name and len(name) <= 256 and name.isprintable():
                return name
    raise UnauthenticatedError("certificate: expected a URI, a common name or another name, got none")
