"""Triton's process of one run: started, once more where that helps, and killed."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import IO

from heartvoice.errors import EngineError
from heartvoice.server.command_line import Launch
from heartvoice.server.loading import LoadProgress, wait_ready
from heartvoice.server.loss_log import LossLog
from heartvoice.server.processes import kill_group
from heartvoice.server.workarounds import load_crash
from heartvoice.server.workarounds.environment_folders import EnvironmentFolders
from heartvoice.server.workarounds.orphaned_regions import remove_unused
from heartvoice.server.workarounds.region_permissions import restrict_permissions


class ServerProcess:
    """One process after the other; each is forgotten when the next one starts."""

    def __init__(self, launch: Launch, log: IO[bytes], losses: LossLog, owner: str) -> None:
        """Prepare; nothing is started.

        Args:
            launch: how it is started.
            log: the server's log, open for appending.
            losses: counts its starts.
            owner: identity of the supervising process, by which shared memory is named.
        """
        self._launch, self._log, self._losses, self._owner = launch, log, losses, owner
        self._folders = EnvironmentFolders(launch.run)
        self._log_start = 0
        self.process: subprocess.Popen[bytes] | None = None
        """The latest one."""

    def start(self, interrupted: Callable[[], bool]) -> None:
        """Start the server and wait until every model answers.

        Args:
            interrupted: called while waiting; true ends the start.

        Raises:
            KeyboardInterrupt: `interrupted` returned true. It and other errors leave the process as it is.
            EngineError: it ended, or was not ready in time.
        """
        load_crash.start(self._launch_once, lambda again: self._wait_ready(interrupted, again=again), self._clean)
        restrict_permissions(self._owner, self._launch.run)
        self.remember()

    def remember(self) -> None:
        """Record what the process would leave if it were killed."""
        if self.process is not None:
            self._folders.remember(self.process.pid)

    def kill(self) -> None:
        """Kill the process, if there is one, and those that it started."""
        if self.process is not None:
            self.remember()
            kill_group(self.process.pid)

    def _clean(self) -> None:
        self.kill()
        if self.process is not None:
            self.process.wait()  # the next one takes its ports
        remove_unused(self._launch.run, self._owner)
        self._losses.server_restarted()

    def _launch_once(self) -> None:
        self._log_start = Path(self._log.name).stat().st_size
        self.process = self._launch.start(self._log)

    def _wait_ready(self, interrupted: Callable[[], bool], *, again: bool) -> bool:
        """Wait until every model answers; return false if Triton may be started `again`."""
        process, options = self.process, self._launch.options
        if process is None:
            raise EngineError("the server has not been started")
        progress = LoadProgress(self._launch.models, Path(self._log.name), self._log_start)

        def looked() -> bool:
            self._folders.look(process.pid)
            return interrupted()

        return wait_ready(process, options.url, progress, options.start_timeout_s, looked, again=again)
