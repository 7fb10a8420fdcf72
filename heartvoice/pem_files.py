"""Checks PEM files of keys and certificates before a connection is made with them."""

from __future__ import annotations

import re
import ssl
from pathlib import Path

from heartvoice.errors import InvalidRequestError

_EXPIRED, _NOT_YET_VALID = 10, 9
"""OpenSSL's codes of a failed verification."""


def check_pem(field: str, content: bytes, wanted: str, where: str) -> None:
    """Refuse a PEM that is empty or holds something else, such as a key in a certificate's place.

    Args:
        field: its name.
        content: of the file.
        wanted: "CERTIFICATE" or "PRIVATE KEY".
        where: its path, for the message; "" for contents.

    Raises:
        InvalidRequestError: naming the field, what is wanted and what it holds.
    """
    found = re.findall(rb"-----BEGIN ([A-Z0-9 ]+)-----", content)
    if any(label.decode().endswith(wanted) for label in found):
        return
    holds = f"one of {found[0].decode()}" if found else f"{len(content)} bytes without a PEM block"
    swapped = "; private key and certificate chain may be swapped" if found and "root" not in field else ""
    got = f"{where!r}, " if where else ""
    raise InvalidRequestError(f"{field}: expected a PEM of a {wanted.lower()}, got {got}{holds}{swapped}")


def check_pair(field: str, key: Path, chain: Path) -> None:
    """Refuse a private key that does not belong to its certificate, or one of them that is damaged.

    Args:
        field: the key's name.
        key: of the certificate.
        chain: the certificate, and those that lead to its authority.

    Raises:
        InvalidRequestError: naming both files.
    """
    try:
        _context(key, chain)
    except (ssl.SSLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", None)
        if reason == "KEY_VALUES_MISMATCH":
            raise InvalidRequestError(f"{field}: {str(key)!r} does not belong to {str(chain)!r}") from error
        why = "has a password" if isinstance(error, ValueError) else "cannot be read: one of them is damaged"
        raise InvalidRequestError(f"{field}: {str(key)!r} with {str(chain)!r} {why}") from error


def why_invalid_now(key: Path, chain: Path) -> str:
    """Return "has expired" or "is not valid yet" of a certificate, and "" of one that is valid now.

    Args:
        key: of the certificate, a pair by `check_pair`.
        chain: the certificate.
    """
    # The standard library has no reader of certificates. A handshake in memory, with the certificate as its own
    # authority, says what a caller would say.
    caller = ssl.create_default_context(cafile=str(chain))
    caller.check_hostname, caller.verify_flags = False, caller.verify_flags | ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    to_server, to_caller = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = _context(key, chain).wrap_bio(to_server, to_caller, server_side=True)
    client = caller.wrap_bio(to_caller, to_server)
    for end in (client, server, client):
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLCertVerificationError as error:
            return {_EXPIRED: "has expired", _NOT_YET_VALID: "is not valid yet"}.get(error.verify_code, "")
        except ssl.SSLError:
            return ""
    return ""


def _context(key: Path, chain: Path) -> ssl.SSLContext:
    def no_password() -> str:
        raise ValueError("the key has a password")  # otherwise OpenSSL asks on the terminal

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key, password=no_password)
    return context
