"""Options of a server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from heartvoice.server.ports import LOOPBACK
from heartvoice.server.profiles import Profile
from heartvoice.server.triton_wheel import ServerFiles


@dataclass(frozen=True)
class ServerOptions:
    """How to run the server."""

    repository: Path
    grpc_port: int = 8001
    metrics_port: int = 8002
    files: ServerFiles | None = None
    """None takes the wheel's."""
    config_name: str = ""
    """Variant of the configs, for example "cpu"; "" takes config.pbtxt."""
    models: tuple[str, ...] | None = None
    """None loads `contracts.LOADED`."""
    start_timeout_s: float = 300.0
    """How long loading may take, at the start and again for each model that is reloaded."""
    hang_s: float = 30.0
    """A process that gives no sign of life for so long is killed: a model's is started anew, the server's is not."""
    drain_s: float = 300.0
    """How long songs in flight may take to finish at a stop."""
    log_path: Path | None = None
    """The log is appended here; None keeps it in the run's folder, which goes at the stop."""
    profile: Profile | None = None
    """The machine that the server is set up for."""
    address: str = LOOPBACK
    """Where it listens; beyond loopback with a native server alone."""
    shared_memory: bool = False
    """Whether clients of this user may hand tensors over by system shared memory."""
