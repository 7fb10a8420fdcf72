"""How Triton is started: its command line, its environment, its log."""

from __future__ import annotations

import math
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from heartvoice.contracts.models import LOADED
from heartvoice.server import hidden_argument, triton_wheel
from heartvoice.server.options import ServerOptions
from heartvoice.server.processes import die_with_parent
from heartvoice.server.shared_memory import SharedMemoryGrant
from heartvoice.server.triton_wheel import ServerFiles
from heartvoice.server.workarounds import response_pool
from heartvoice.serving import process_registry
from heartvoice.serving.workarounds import unread_responses

ADMIN_HEADER = "triton-grpc-protocol-heartvoice-admin"
_ADMIN_APIS = "model-repository,trace,logging"
KEEPALIVE_S = 10.0
"""A silent caller is asked so often whether it is there, and given up when it does not answer for as long."""


@dataclass(frozen=True)
class Launch:
    """What one run's server is started with, as often as it has to be."""

    options: ServerOptions
    files: ServerFiles
    models: tuple[str, ...]
    backends: Path
    root: Path
    """The repository, resolved."""
    shm_prefix: str = ""
    run: Path = Path()
    secret: str = ""
    """The key of the admin calls."""
    grant: SharedMemoryGrant | None = None
    stop_s: float = 0.0

    def command(self) -> list[str]:
        """Triton's arguments, without keys."""
        options = self.options
        command = [
            str(self.files.binary),
            f"--model-repository={self.root}",
            f"--backend-directory={self.backends}",
            f"--backend-config=python,shm-region-prefix-name={self.shm_prefix}",
            "--disable-auto-complete-config",
            "--model-control-mode=explicit",
            *(f"--load-model={name}" for name in self.models),
            "--allow-http=false",
            f"--grpc-address={options.address}",
            f"--grpc-port={options.grpc_port}",
            f"--metrics-address={options.address}",
            f"--metrics-port={options.metrics_port}",
            *response_pool.FLAGS,
            *self._restrictions(),  # the keys follow, out of sight
            # A caller that vanishes without a word (no FIN) would keep its job for Triton's default of two hours. Pings
            # of callers are welcome, too: the default drops those that ping more than once in five minutes.
            f"--grpc-keepalive-time={round(KEEPALIVE_S * 1000)}",
            f"--grpc-keepalive-timeout={round(KEEPALIVE_S * 1000)}",
            "--grpc-http2-max-pings-without-data=0",
            f"--grpc-http2-min-recv-ping-interval-without-data={round(KEEPALIVE_S * 500)}",
            f"--exit-timeout-secs={math.ceil(self.stop_s)}",
            "--log-format=ISO8601",
            *(options.profile.arguments if options.profile else ()),
        ]
        return command + ([f"--model-config-name={options.config_name}"] if options.config_name else [])

    def start(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start it; its log is appended to `log`."""
        return hidden_argument.start(
            self.command(),
            self._restrictions(),
            env={**unread_responses.ENVIRONMENT, **self._environment(), process_registry.VARIABLE: str(self.run)},
            before_exec=die_with_parent,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches us alone: we decide how it stops
        )

    def _environment(self) -> dict[str, str]:
        env = triton_wheel.environment(self.files)
        return env if self.options.profile is None else self.options.profile.environment(env)

    def _restrictions(self) -> dict[str, str]:
        """Arguments that close APIs, without and with their keys."""
        apis = _ADMIN_APIS if self.grant else f"{_ADMIN_APIS},shared-memory"
        argument = f"--grpc-restricted-protocol={apis}:heartvoice-admin="
        return {argument: argument + self.secret, **(self.grant.argument if self.grant else {})}


def flag_names(options: ServerOptions, files: ServerFiles) -> list[str]:
    """Every flag that a server started so is given, without values."""
    command = Launch(options, files, LOADED, files.binary.parent, options.repository).command()
    return list(dict.fromkeys(argument.partition("=")[0] for argument in command[1:]))
