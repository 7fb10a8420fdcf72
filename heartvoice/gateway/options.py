"""How to run a gateway. Light to import."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from heartvoice.contracts.models import MODELS
from heartvoice.errors import InvalidRequestError
from heartvoice.gateway.rate_limits import Limits

PUBLIC_MODELS = tuple(model.name for model in MODELS.values() if model.backend == "python")
"""What callers are meant to reach: songs, covers and each stage. Native graphs only where the operator names them."""
_LOOPBACK = re.compile(r"^(127\.\d+\.\d+\.\d+|localhost|\[::1\]):\d+$|^unix:")


@dataclass(frozen=True)
class GatewayOptions:
    """How to run a gateway."""

    listen: str = "127.0.0.1:8010"
    upstream: str = "127.0.0.1:8001"
    metrics_port: int = 8003
    """On loopback; 0 serves none."""
    certificate: Path | None = None
    private_key: Path | None = None
    client_roots: Path | None = None
    """Callers must show a certificate that these have signed."""
    tokens: Path | None = None
    models: tuple[str, ...] = PUBLIC_MODELS
    limits: Limits = field(default_factory=Limits)
    connections: int = 1000
    insecure: bool = False
    """Whether plain text, or callers without a name, may come from beyond loopback."""
    drain_s: float = 300.0

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.private_key is None):
            raise InvalidRequestError("--certificate, --private-key: expected both or neither, got one")
        if self.client_roots is not None and self.certificate is None:
            raise InvalidRequestError("--client-roots: expected --certificate and --private-key, too, got neither")
        for option, address in (("--listen", self.listen), ("--upstream", self.upstream)):
            if not re.search(r":\d+$|^unix:", address):
                raise InvalidRequestError(f"{option}: expected host:port, got {address!r}")
        unknown = [name for name in self.models if name not in MODELS]
        if unknown or not self.models:
            raise InvalidRequestError(f"--models: expected some of {', '.join(MODELS)}, got {', '.join(unknown)!r}")
        if not self.insecure:
            self._check_exposure()

    def _check_exposure(self) -> None:
        lacking = [] if self.certificate else ["--certificate and --private-key"]
        lacking += [] if self.tokens or self.client_roots else ["--tokens or --client-roots"]
        if lacking and not _LOOPBACK.match(self.listen):
            raise InvalidRequestError(
                f"--listen: {self.listen} is not on loopback; expected {', and '.join(lacking)}, or --insecure"
            )
        if not _LOOPBACK.match(self.upstream):
            raise InvalidRequestError(
                f"--upstream: {self.upstream} is not on loopback, and the way there is not encrypted; "
                "expected a server on this host, or --insecure"
            )
