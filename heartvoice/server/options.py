"""Options of a server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from heartvoice.server.ports import ANY, LOOPBACK, UNIX
from heartvoice.server.profiles import Profile
from heartvoice.server.triton_wheel import ServerFiles


@dataclass(frozen=True)
class ServerOptions:
    """The options of a server."""

    repository: Path
    grpc_port: int = 8001
    metrics_port: int = 8002
    files: ServerFiles | None = None
    """None takes the wheel's."""
    config_name: str = ""
    """Variant of the configs, for example "cpu"; "" takes config.pbtxt."""
    models: tuple[str, ...] | None = None
    """None loads those of `contracts.LOADED` that the repository has."""
    start_timeout_s: float = 300.0
    """Seconds for loading, at the start and for each model that is reloaded."""
    hang_s: float = 30.0
    """A process that gives no sign of life for so long is killed and started anew."""
    drain_s: float = 300.0
    """Seconds for songs in flight to finish at a stop."""
    log_path: Path | None = None
    """The log is appended here; None keeps it in the run's folder, which goes at the stop."""
    profile: Profile | None = None
    """The machine that the server is set up for."""
    address: str = LOOPBACK
    """Where it listens: loopback, or `unix:/FOLDER/NAME`; beyond loopback with a native server alone."""
    shared_memory: bool = False
    """True if clients of this user may hand tensors over by system shared memory."""
    signing_keys: Path | None = None
    """Folder of the keys that sign what `render` encodes; None signs nothing."""

    watermark_key: Path | None = None
    """File of the key that all songs are marked with; None marks none."""

    @property
    def on_socket(self) -> bool:
        """True if it listens on a Unix socket."""
        return self.address.startswith(UNIX)

    @property
    def metrics_address(self) -> str:
        """Address of the metrics, which have no Unix socket."""
        return LOOPBACK if self.on_socket else self.address

    @property
    def url(self) -> str:
        """Address for clients on this machine."""
        return f"{LOOPBACK if self.address == ANY else self.address}:{self.grpc_port}"

    @property
    def metrics_url(self) -> str:
        """Page of the metrics, for this machine."""
        return f"http://{LOOPBACK if self.metrics_address == ANY else self.metrics_address}:{self.metrics_port}/metrics"
