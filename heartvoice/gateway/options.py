"""The gateway's options for command line and file: names, types, defaults, ranges. Light to import."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

from heartvoice.contracts.models import MODELS
from heartvoice.errors import InvalidRequestError
from heartvoice.gateway.rate_limits import Limits

PUBLIC_MODELS = tuple(model.name for model in MODELS.values() if model.backend == "python")
"""Models for callers by default: songs, covers and each stage. Native graphs need the operator's option."""
CALLERS, VOICES, LIMITS = "Callers", "Voices", "Limits of each caller"
_LOOPBACK = re.compile(r"^(127\.\d+\.\d+\.\d+|localhost|\[::1\]):\d+$|^unix:")


_LIMIT_HELP = {
    "requests_per_s": "In the long run; twice as many at once.",
    "bytes_per_minute": "Sent by the caller, in the long run.",
    "concurrent": "Calls and streams at once.",
    "requests_per_stream": "Requests in one stream.",
    "max_message_bytes": "Of one request.",
    "receive_s": "Seconds until a call's first request has arrived.",
    "stalled_s": "Seconds that a response may be left unread.",
    "call_s": "Seconds of a whole call.",
}


@dataclass(frozen=True)
class Shown:
    """Help text and range of an option."""

    help: str
    metavar: str | None = None
    panel: str | None = None
    minimum: float | None = None
    maximum: float | None = None


def _shown(text: str, **shown: Any) -> dict[str, Shown]:
    return {"shown": Shown(text, **shown)}


@dataclass(frozen=True)
class GatewayOptions:
    """Settings of a gateway."""

    listen: str = field(default="127.0.0.1:8010", metadata=_shown("Where callers connect.", metavar="HOST:PORT"))
    upstream: str = field(
        default="127.0.0.1:8001", metadata=_shown("The server, as `heartvoice serve` names it.", metavar="HOST:PORT")
    )
    models: tuple[str, ...] = field(
        default=PUBLIC_MODELS,
        metadata=_shown("Models that callers may reach. Default: all but the native graphs.", metavar="NAME,..."),
    )
    metrics_port: int = field(
        default=8003, metadata=_shown("Port for Prometheus, on loopback only; 0 for none.", minimum=0, maximum=65_535)
    )
    access_log: Path | None = field(
        default=None, metadata=_shown("A JSON line for each call; default standard error.", metavar="FILE")
    )
    drain_s: float = field(default=300.0, metadata=_shown("How long calls may take to finish at a stop.", minimum=0))
    connections: int = field(default=1000, metadata=_shown("Most connections at once, of all callers.", minimum=1))
    certificate: Path | None = field(
        default=None, metadata=_shown("The gateway's certificate.", metavar="PEM", panel=CALLERS)
    )
    private_key: Path | None = field(default=None, metadata=_shown("Its key.", metavar="PEM", panel=CALLERS))
    tokens: Path | None = field(
        default=None,
        metadata=_shown(
            "Callers send a bearer token; FILE has names and hashes; see `gateway token --help`.",
            metavar="FILE",
            panel=CALLERS,
        ),
    )
    client_roots: Path | None = field(
        default=None,
        metadata=_shown(
            "Callers show a certificate that these roots have signed; without --tokens it also names them.",
            metavar="PEM",
            panel=CALLERS,
        ),
    )
    insecure: bool = field(
        default=False, metadata=_shown("Allow plain text, or callers without a name, beyond loopback.", panel=CALLERS)
    )
    registry: Path | None = field(
        default=None,
        metadata=_shown(
            "Registered voices, which callers of their owners' names send by id; see `voice --help`.",
            metavar="DIR",
            panel=VOICES,
        ),
    )
    require_registered_voices: bool = field(
        default=False, metadata=_shown("Refuse references of voices that are not registered.", panel=VOICES)
    )
    limits: Limits = field(default_factory=Limits)
    """Limits of each caller, with an option for each field."""

    def __post_init__(self) -> None:
        for setting in fields(self):
            if "shown" in setting.metadata:
                _check_range(setting.name, getattr(self, setting.name), setting.metadata["shown"])
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
        self._check_voices()
        if not self.insecure:
            self._check_exposure()

    def _check_voices(self) -> None:
        if self.registry is not None and self.tokens is None and self.client_roots is None:
            raise InvalidRequestError(
                "--registry: expected --tokens or --client-roots, too, because voices belong to callers by name"
            )
        if not self.require_registered_voices:
            return
        if self.registry is None:
            raise InvalidRequestError("--require-registered-voices: expected --registry, too, got none")
        graphs = [name for name in self.models if MODELS[name].backend != "python"]
        if graphs:
            raise InvalidRequestError(
                "--require-registered-voices: expected no native graphs among --models, because some of them sing in"
                f" any voice, got {', '.join(graphs)}"
            )

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


def _check_range(name: str, value: Any, shown: Shown) -> None:
    low, high = shown.minimum, shown.maximum
    if (low is not None and not value >= low) or (high is not None and not value <= high):
        allowed = f"at least {low:g}" if high is None else f"{low:g} to {high:g}"
        raise InvalidRequestError(f"{flag(name)}: expected {allowed}, got {value}")


def flag(name: str) -> str:
    """Return an option's name on the command line."""
    return "--" + name.replace("_", "-")


@dataclass(frozen=True)
class Option:
    """One option of the command line and of the file."""

    name: str
    """The field of `GatewayOptions` or `Limits`."""
    kind: Any
    """Type of the field."""
    default: Any
    shown: Shown


def all_options() -> tuple[Option, ...]:
    """Return all options in the order of the help: fields of `GatewayOptions`, then of `Limits`."""
    kinds = get_type_hints(GatewayOptions)
    own = [
        Option(item.name, kinds[item.name], item.default, item.metadata["shown"])
        for item in fields(GatewayOptions)
        if "shown" in item.metadata
    ]
    kinds = get_type_hints(Limits)
    limits = [
        Option(item.name, kinds[item.name], item.default, Shown(_LIMIT_HELP[item.name], panel=LIMITS))
        for item in fields(Limits)
    ]
    return (*own, *limits)


def make_options(values: Mapping[str, Any]) -> GatewayOptions:
    """Build the options from values by field name; other fields of `GatewayOptions` and `Limits` keep defaults.

    Raises:
        InvalidRequestError: names an option, what is allowed and the value.
    """
    limits = {item.name for item in fields(Limits)}
    own = {name: value for name, value in values.items() if name not in limits}
    return GatewayOptions(**own, limits=Limits(**{name: values[name] for name in limits & values.keys()}))
