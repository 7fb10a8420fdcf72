"""Says in the user's words why a connection was not made, and what to do."""

from __future__ import annotations

import re

from heartvoice.errors import HeartvoiceError, InvalidRequestError, ModelMissingError, ModelUnavailableError

_FAILED = re.compile(r"failed to connect|errors? resolving|DNS resolution failed|connect failed", re.IGNORECASE)
_Case = tuple[str, type[HeartvoiceError], str]
"""What gRPC's text has (1.85, BoringSSL), the class, and our text. Another try helps ModelUnavailableError alone."""
_ALWAYS: tuple[_Case, ...] = (
    (
        r"unix:.*(?:No such file|error: No such)",
        ModelUnavailableError,
        "there is no such socket: start a server with `heartvoice serve --address unix:/FOLDER/NAME`, or correct it",
    ),
    (
        r"Permission denied",
        ModelUnavailableError,
        "you may not open it: run as the server's user, or ask for its permission",
    ),
    (
        r"Connection refused",
        ModelUnavailableError,
        "nothing listens there: start a server with `heartvoice serve`, or give the URL of one that runs",
    ),
    (
        r"resolving|DNS|Domain name not found|lookup",
        ModelUnavailableError,
        "the host's name is not known: check its spelling and your network, or give an IP address",
    ),
    (
        r"timed? ?out|unreachable|No route",
        ModelUnavailableError,
        "the host does not answer: check the address, the network and the firewall",
    ),
    (
        r"http1\.x server",
        ModelMissingError,
        "an HTTP/1 server answers there, perhaps the metrics: give the port that `heartvoice serve` prints for gRPC",
    ),
)
_TLS: tuple[_Case, ...] = (
    (
        r"WRONG_VERSION_NUMBER|HTTP_REQUEST",
        ModelMissingError,
        "the server speaks plain text, not TLS: leave out --tls and the certificates, or take the gateway's port",
    ),
    (
        r"Peer name .* is not in peer|[Hh]ostname [Vv]erification",
        ModelMissingError,
        "the server's certificate is for another name: call it by a name in its certificate",
    ),
    (
        r"certificate has expired|not yet valid",
        ModelMissingError,
        "the server's certificate has expired or is not valid yet: renew it, or correct this machine's clock",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED",
        ModelMissingError,
        "the server's certificate is signed by itself or by an authority that is not trusted here: give that "
        "authority's certificate, --root-certificates PEM",
    ),
    (
        r"CERTIFICATE_REQUIRED|HANDSHAKE_FAILURE|BAD_CERTIFICATE|UNKNOWN_CA",
        ModelMissingError,
        "the server refuses your certificate or the lack of one: give --private-key and --certificate-chain that it "
        "trusts",
    ),
    (
        r"Failed to create security handshaker",
        InvalidRequestError,
        "the PEM files make no TLS: the private key must belong to the certificate chain, and the roots must be "
        "certificates",
    ),
    (
        r"Socket closed|Connection reset|handshake|EOF",
        ModelUnavailableError,
        "the server ended the TLS handshake: it may ask for a client's certificate, --private-key and "
        "--certificate-chain, or refuse yours, if it has expired or is signed by an authority that it does not trust",
    ),
)
_PLAIN: tuple[_Case, ...] = (
    (
        r"Socket closed|Connection reset|EOF|recvmsg",
        ModelUnavailableError,
        "the server ended the connection at once: it probably speaks TLS, use --tls or --root-certificates PEM",
    ),
)


def connection_error(url: str, details: str, *, secure: bool) -> HeartvoiceError | None:
    """The error of a connection that was not made; None if the call failed for another reason.

    Args:
        url: of the server.
        details: gRPC's own text.
        secure: the connection is encrypted.
    """
    if not _FAILED.search(details) and "http1.x server" not in details:
        return None
    for pattern, kind, text in (*_ALWAYS, *(_TLS if secure else _PLAIN)):
        if re.search(pattern, details):
            return kind(f"{url}: {text}")
    return ModelUnavailableError(f"{url}: no connection: {' '.join(details.split())}")
