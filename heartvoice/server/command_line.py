"""Command line and environment of Triton."""

from __future__ import annotations

import math
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from heartvoice.contracts.about import ABOUT
from heartvoice.contracts.constants import SIGNING_KEYS_VARIABLE, WATERMARK_KEY_VARIABLE
from heartvoice.contracts.models import LOADED
from heartvoice.server import triton_wheel
from heartvoice.server.options import ServerOptions
from heartvoice.server.processes import start_with_parent
from heartvoice.server.shared_memory import SharedMemoryGrant
from heartvoice.server.triton_wheel import ServerFiles
from heartvoice.server.workarounds import response_pool
from heartvoice.serving import process_registry
from heartvoice.serving.workarounds import unread_responses

ADMIN_HEADER = "triton-grpc-protocol-heartvoice-admin"
_ADMIN_APIS = "model-repository,trace,logging"
KEEPALIVE_S = 10.0
"""A silent caller is pinged so often, and dropped if it does not answer for as long."""


@dataclass(frozen=True)
class Launch:
    """Start parameters of one run's server, which may be started several times."""

    options: ServerOptions
    files: ServerFiles
    models: tuple[str, ...]
    backends: Path
    roots: tuple[Path, ...]
    """The repositories, resolved."""
    shm_prefix: str = ""
    run: Path = Path()
    secret: str = ""
    """The key of the admin calls."""
    grant: SharedMemoryGrant | None = None
    stop_s: float = 0.0

    def command(self) -> list[str]:
        """Return Triton's command line, with the keys: it reads them from nowhere else."""
        options = self.options
        command = [
            str(self.files.binary),
            *(f"--model-repository={root}" for root in self.roots),
            f"--id={ABOUT}",
            # Otherwise the whole server counts as not ready while one model's process is replaced.
            "--strict-readiness=false",
            f"--backend-directory={self.backends}",
            f"--backend-config=python,shm-region-prefix-name={self.shm_prefix}",
            "--disable-auto-complete-config",
            "--model-control-mode=explicit",
            *(f"--load-model={name}" for name in self.models),
            "--allow-http=false",
            f"--grpc-address={options.address}",
            f"--grpc-port={options.grpc_port}",
            f"--metrics-address={options.metrics_address}",
            f"--metrics-port={options.metrics_port}",
            *response_pool.FLAGS,
            *self._restrictions(),
            # A caller that vanishes without closing its connection would keep its job for two hours (Triton's default).
            # By default callers that ping more than once in five minutes are dropped.
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
        """Start the server; its log is appended to `log`."""
        return start_with_parent(
            self.command(),
            env={**unread_responses.ENVIRONMENT, **self._environment(), process_registry.VARIABLE: str(self.run)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C must not reach it: the supervisor stops it
        )

    def _environment(self) -> dict[str, str]:
        env = triton_wheel.environment(self.files)
        chosen = {
            SIGNING_KEYS_VARIABLE: self.options.signing_keys, WATERMARK_KEY_VARIABLE: self.options.watermark_key,
        }  # fmt: skip
        for name, path in chosen.items():
            env.pop(name, None)  # the options alone say what signs and what marks
            if path is not None:
                env[name] = str(path.resolve())
        return env if self.options.profile is None else self.options.profile.environment(env)

    def _restrictions(self) -> list[str]:
        """Return the arguments that close APIs to calls without a key."""
        apis = _ADMIN_APIS if self.grant else f"{_ADMIN_APIS},shared-memory"
        argument = f"--grpc-restricted-protocol={apis}:heartvoice-admin={self.secret}"
        return [argument, *([self.grant.argument] if self.grant else [])]


def flag_names(options: ServerOptions, files: ServerFiles) -> list[str]:
    """Return every flag of a server that is started so, without values."""
    command = Launch(options, files, LOADED, files.binary.parent, (options.repository,)).command()
    return list(dict.fromkeys(argument.partition("=")[0] for argument in command[1:]))
