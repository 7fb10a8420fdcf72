"""The connection to a server: address, TLS, token and channel options."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from heartvoice.client.arguments import Pem
from heartvoice.client.deadlines import job_timeout_s
from heartvoice.client.messages import DEFAULT_STALL_TIMEOUT_S, DEFAULT_TIMEOUT_S, DEFAULT_URL
from heartvoice.client.requests import JobRequest, with_reference
from heartvoice.client.retries import RetryState
from heartvoice.contracts.constants import CONNECT_TIMEOUT_S, MAX_FILE_BYTES
from heartvoice.errors import InvalidRequestError
from heartvoice.pem_files import check_pair, check_pem

READY_TIMEOUT_S = 5.0
MAX_RECEIVE_BYTES = MAX_FILE_BYTES + 4_000_000
MAX_SEND_BYTES = 2**31 - 1
"""Protobuf's own limit. The most that a contract allows is half of it: 600 s of stereo samples at 192 kHz."""
LOOKAHEAD_BYTES = 4_000_000
"""Most bytes of a stream taken before they are read, beside the message under way. Derived: at most 40 MB/s
where an answer takes 0.1 s."""
TOKEN_VARIABLE = "HEARTVOICE_TOKEN"  # noqa: S105 (a variable's name)
_LOOPBACK = re.compile(r"^(127\.\d+\.\d+\.\d+|localhost|\[::1\]):\d+$")


@dataclass(frozen=True)
class Connection:
    """The settings of a connection; `Client` documents the fields."""

    url: str = DEFAULT_URL
    tls: bool = False
    root_certificates: Pem | None = None
    private_key: Pem | None = None
    certificate_chain: Pem | None = None
    keepalive_s: float | None = None
    keepalive_timeout_s: float = 20.0
    timeout_s: float | None = None
    stall_timeout_s: float = DEFAULT_STALL_TIMEOUT_S
    retries: int = 3
    metadata: Sequence[tuple[str, str]] = field(default=(), repr=False)
    token_file: str | Path | None = None
    registry: str | Path | None = None
    owner: str | None = None

    def __post_init__(self) -> None:
        if not self.url or re.match(r"https?://|grpcs?://", self.url):
            raise InvalidRequestError(f"url: expected host:port of the gRPC endpoint, got {self.url!r}")
        if re.fullmatch(r"[^:/,]+|\[[^\]]*\]", self.url):  # gRPC would take port 443
            raise InvalidRequestError(f"url: expected host:port of the gRPC endpoint, got {self.url!r} without a port")
        if (self.private_key is None) != (self.certificate_chain is None):
            raise InvalidRequestError("private_key, certificate_chain: expected both or neither, got one")
        check_timeout(self.timeout_s)
        check_timeout(self.stall_timeout_s)
        if self.retries < 0:
            raise InvalidRequestError(f"retries: expected 0 or more, got {self.retries}")
        object.__setattr__(self, "metadata", tuple(self.metadata))
        token = read_token(self.token_file)
        if token and not any(name == "authorization" for name, _ in self.metadata):
            self._check_private()
            object.__setattr__(self, "metadata", (*self.metadata, ("authorization", f"Bearer {token}")))

    def _check_private(self) -> None:
        if self.credentials is None and not (_LOOPBACK.match(self.url) or self.url.startswith("unix:")):
            raise InvalidRequestError(
                f"token: expected TLS on the way to {self.url}, where others could read the token; got plain text"
            )

    @property
    def options(self) -> list[tuple[str, int]]:
        """Channel options: room for files and recordings, our retries instead of gRPC's, quick reconnection."""
        options = [
            ("grpc.max_receive_message_length", MAX_RECEIVE_BYTES),
            ("grpc.max_send_message_length", MAX_SEND_BYTES),
            # By default gRPC measures the way and takes ever more bytes ahead where this machine is busy.
            ("grpc.http2.bdp_probe", 0),
            ("grpc.http2.lookahead_bytes", LOOKAHEAD_BYTES),
            ("grpc.enable_retries", 0),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", round(CONNECT_TIMEOUT_S * 1000)),
            ("grpc.max_reconnect_backoff_ms", 2000),
        ]
        if _LOOPBACK.match(self.url):
            options.append(("grpc.enable_http_proxy", 0))  # http_proxy would lead loopback calls astray
        if self.keepalive_s is not None:
            options += [
                ("grpc.keepalive_time_ms", round(self.keepalive_s * 1000)),
                ("grpc.keepalive_timeout_ms", round(self.keepalive_timeout_s * 1000)),
                ("grpc.http2.max_pings_without_data", 0),
            ]
        return options

    @property
    def secure(self) -> bool:
        """True if the connection is encrypted."""
        pems = (self.root_certificates, self.private_key, self.certificate_chain)
        return self.tls or any(pem is not None for pem in pems)

    @property
    def credentials(self) -> grpc.ChannelCredentials | None:
        """TLS credentials, or None for plain text."""
        if not self.secure:
            return None
        pems = (
            ("root_certificates", "CERTIFICATE"),
            ("private_key", "PRIVATE KEY"),
            ("certificate_chain", "CERTIFICATE"),
        )
        contents = [_read_pem(name, getattr(self, name), kind) for name, kind in pems]
        if isinstance(self.private_key, str | Path) and isinstance(self.certificate_chain, str | Path):
            check_pair("private_key", Path(self.private_key), Path(self.certificate_chain))
        return grpc.ssl_channel_credentials(*contents)

    def sung(self, request: JobRequest) -> JobRequest:
        """Return what the server is asked for: with a registry of one's own, a registered voice by its reference.

        Raises:
            InvalidRequestError: the owner has no such voice, or it may not sing.
            ModelUnavailableError: the extra `trust` is missing.
            RegistryError: the registry is not what was written.
        """
        return request if self.registry is None else with_reference(request, self.registry, self.owner)

    def attempts(self, what: str, timeout_s: float | None, message: Any = None) -> RetryState:
        """The tries of one call to the model `what`.

        Args:
            what: the model.
            timeout_s: its deadline; None is the connection's own, or without one, as long as the request needs.
            message: the request.

        Raises:
            InvalidRequestError: the timeout is not above 0.
        """
        check_timeout(timeout_s)
        if timeout_s is None:
            timeout_s = self.timeout_s
        if timeout_s is None:
            timeout_s = DEFAULT_TIMEOUT_S if message is None else job_timeout_s(message)
        return RetryState(
            what, self.url, timeout_s, self.retries, secure=self.secure, certified=self.private_key is not None
        )


def _read_pem(field: str, pem: Pem | None, kind: str) -> bytes | None:
    if pem is None:
        return None
    try:
        content = pem if isinstance(pem, bytes) else Path(pem).read_bytes()
    except OSError as error:
        raise InvalidRequestError(f"{field}: cannot read {str(pem)!r}: {error.strerror}") from error
    check_pem(field, content, kind, "" if isinstance(pem, bytes) else str(pem))
    return content


def read_token(path: str | Path | None) -> str:
    """The bearer token of that file, else of HEARTVOICE_TOKEN; "" if there is neither.

    Raises:
        InvalidRequestError: the file cannot be read, or holds no token.
    """
    try:
        text = os.environ.get(TOKEN_VARIABLE, "") if path is None else Path(path).read_text("utf-8", errors="replace")
    except OSError as error:
        raise InvalidRequestError(f"token_file: cannot read {str(path)!r}: {error.strerror}") from error
    token, source = text.strip(), TOKEN_VARIABLE if path is None else f"token_file: {str(path)!r}"
    if path is not None and not token:
        raise InvalidRequestError(f"{source}: expected a token, got an empty file")
    if not re.fullmatch(r"[!-~]*", token):
        raise InvalidRequestError(f"{source}: expected one word, got {len(token)} characters of something else")
    return token


def check_timeout(timeout_s: float | None) -> None:
    """Refuse a timeout that is not above 0; None and infinity are fine.

    Raises:
        InvalidRequestError: naming the value.
    """
    if timeout_s is not None and not timeout_s > 0:
        raise InvalidRequestError(f"timeout_s: expected a number above 0, got {timeout_s}")
