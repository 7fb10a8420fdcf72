"""A supervised Triton server: starts it, waits until it is ready, restarts what fails, stops it, and cleans up."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

import grpc

from heartvoice.contracts.about import ABOUT
from heartvoice.contracts.models import LOADED
from heartvoice.errors import EngineError, HeartvoiceError, ModelUnavailableError
from heartvoice.runtime.repository import Repository
from heartvoice.server import about_model, cleanup, page_cache, triton_wheel
from heartvoice.server.command_line import Launch
from heartvoice.server.health import ServerProbe
from heartvoice.server.loss_log import LossLog
from heartvoice.server.options import ServerOptions
from heartvoice.server.ports import LOOPBACK, check_address, socket_path
from heartvoice.server.processes import crashed
from heartvoice.server.repository_api import LOAD, UNLOAD, RepositoryApi
from heartvoice.server.server_process import ServerProcess
from heartvoice.server.shared_memory import SharedMemoryGrant
from heartvoice.server.start_checks import check_graphs, check_options
from heartvoice.server.workarounds import late_exit, numpy_version
from heartvoice.server.workarounds.abandoned_responses import AbandonedResponses
from heartvoice.server.workarounds.crash_restarts import CrashCount
from heartvoice.server.workarounds.dead_stubs import DIED, StubHealth
from heartvoice.server.workarounds.drain_before_stop import count_live_jobs, wait_until_idle
from heartvoice.server.workarounds.lingering_processes import LingeringProcesses
from heartvoice.server.workarounds.orphaned_regions import remove_unused
from heartvoice.server.workarounds.region_permissions import restrict_permissions
from heartvoice.serving import process_registry
from heartvoice.serving.workarounds import unread_responses
from heartvoice.shm_regions import process_identity, shm_prefix

log = logging.getLogger(__name__)

WATCH_S = 0.2
UNLOAD_TIMEOUT_S = 30.0
WITHDRAW_S = 2.0
"""Longest wait in seconds until the server counts as not ready, when a stop begins."""
CANCEL_S = 2.0
"""Seconds for cancelled jobs to end."""
STOP_S, STOP_PER_MODEL_S = 4.0, 0.5
"""Seconds for a server without jobs to stop. With all models it takes about 2 s on two idle cores."""


def free_port() -> int:
    """Return a loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


class EmbeddedServer:
    """One server. Use it as a context manager, or call `start` and `stop`."""

    def __init__(self, options: ServerOptions) -> None:
        self.options = options
        self.url, self.metrics_url = options.url, options.metrics_url
        self.restarts: dict[str, int] = {}
        self._lost_with: dict[str, int] = {}
        """The last dead process of each model whose jobs were counted."""
        self.models = options.models or LOADED
        self._stop_s = STOP_S + STOP_PER_MODEL_S * len(self.models)
        self._owner = process_identity(os.getpid())
        self._triton: ServerProcess | None = None
        self._run: Path | None = None
        self._secret = secrets.token_hex(16)
        self._api = RepositoryApi(self.url, self._secret)
        self._grant: SharedMemoryGrant | None = None
        self._probe = ServerProbe(self.url, options.hang_s)
        self._watcher = threading.Thread(target=self._watch, name="watch-stubs", daemon=True)
        self._stopping = threading.Event()
        self._reloading = threading.Lock()
        self.ready = False
        """True if every model has answered."""
        self._log: IO[bytes] | None = None
        self._crashes = CrashCount()
        self._losses: LossLog | None = None
        self._lingering: LingeringProcesses | None = None
        self._down, self._renewing, self._hung = threading.Event(), threading.Event(), threading.Event()

    def __enter__(self) -> EmbeddedServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The server's process."""
        return self._started().pid

    def start(self, interrupted: Callable[[], bool] = lambda: False) -> None:
        """Start the server and wait until every model answers.

        Args:
            interrupted: called while waiting; true ends the start. For signal handlers, because an exception that one
                raises during a gRPC call can get lost.

        Raises:
            KeyboardInterrupt: `interrupted` returned true.
            SetupError: the machine or the environment lacks something, or a port is taken.
            EngineError: the repository is no finished export, or a model does not load; the message has the reason.
        """
        files = self.options.files or triton_wheel.find_wheel()
        if not files.native:
            numpy_version.check_numpy()
            check_address(self.options.address)
        repository = Repository(self.options.repository.resolve())
        if self.options.models is None:
            self.models = tuple(name for name in LOADED if name in repository.models)
        log.info(
            "loading %d models of preset %s, weights %s, from %s",
            len(self.models), repository.index["preset"], repository.index["weights"], repository.root,
        )  # fmt: skip
        check_graphs(repository, self.models)
        check_options(self.options)
        n_regions = cleanup.remove_stale()
        if n_regions:
            log.info("removed %d shared-memory regions of servers that died", n_regions)
        self._run = cleanup.new_run_folder()
        self._lingering = LingeringProcesses(self._run)
        if self.options.shared_memory:
            prefix = shm_prefix(self._owner, self._run)
            self._grant = SharedMemoryGrant(self.url, self.options.grpc_port, prefix)
        try:
            backends = triton_wheel.backend_directory(files, self._run / "backends")
            path = self.options.log_path or self._run / "server.log"
            # Appended, so that neither a restart nor a rotation (copy and truncate) loses or tears it.
            self._log = path.open("ab")
            self._losses = LossLog(self._run, self._log)
            about = about_model.lay_out(repository, self.models, self._run / "about")
            launch = Launch(
                self.options, files, (*self.models, ABOUT), backends, (repository.root, about),
                shm_prefix=shm_prefix(self._owner, self._run), run=self._run, secret=self._secret,
                grant=self._grant, stop_s=self._stop_s,
            )  # fmt: skip
            self._triton = ServerProcess(launch, self._log, self._losses, self._owner)
            self._triton.start(interrupted)
            if self._grant is not None:
                self._grant.publish()
        except BaseException:
            self.stop(cancel=True)
            raise
        self.ready = True
        if self.options.profile is not None and self.options.profile.drop_page_cache:
            n_bytes = page_cache.drop([repository.root])
            log.info("dropped files of %.2f GB from the page cache", n_bytes / 1e9)
        self._watcher.start()

    def stop(self, *, cancel: bool = True) -> None:
        """Stop the server, and remove the run's folder and shared memory.

        Args:
            cancel: end songs in flight at once; otherwise they may finish within `drain_s`.
        """
        process = self._process
        if self._triton is not None and process is not None and self._run is not None and process.poll() is None:
            (self._run / process_registry.DRAIN).touch()
            self._withdraw()
            if not cancel:
                self._drain(self.options.drain_s)
            self._stopping.set()
            self.cancel_jobs()
            self._drain(CANCEL_S)
            self._triton.remember()
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            # Requests whose stub was killed and streams that nobody reads never end.
            if not late_exit.wait(process, self.stub_pids, self._has_callers, self._stop_s):
                log.warning("the server did not stop within %g s and is killed", self._stop_s)
        self._stopping.set()
        self._kill()
        if process is not None:
            process.wait()
        if self._watcher.is_alive():
            self._watcher.join(timeout=UNLOAD_TIMEOUT_S)
        if self._log is not None:
            self._log.close()
        if self._run is not None:
            cleanup.remove_run(self._run, self._owner)
            self._run = None
            if self.options.on_socket:
                socket_path(self.options.address, self.options.grpc_port).unlink(missing_ok=True)

    def _has_callers(self) -> bool:
        address, port = self.options.address, self.options.grpc_port
        return late_exit.has_callers(self.pid, port, socket_path(address, port) if self.options.on_socket else None)

    def _drain(self, timeout_s: float) -> None:
        """Wait until no job is live, the server has ended, or jobs are being cancelled meanwhile."""
        flag = self._folder() / process_registry.STOP
        cancelling = flag.exists()
        wait_until_idle(
            self.live_jobs, timeout_s, lambda: self.poll() is not None or (not cancelling and flag.exists())
        )

    def live_jobs(self) -> int:
        """Return the number of jobs that run or wait, by the server's own metrics; 0 if it does not answer."""
        return count_live_jobs(self.metrics_url)

    def cancel_jobs(self) -> None:
        """Tell every model to end its jobs. It cannot be undone: for a stop."""
        if self._run is not None:
            (self._run / process_registry.STOP).touch()

    def poll(self) -> int | None:
        """Return the server's exit status; None while it runs or is being restarted."""
        status = self._process.poll() if self._process else None
        comes_back = crashed(status) or self._renewing.is_set() or self._hung.is_set()
        return None if comes_back and self._watcher.is_alive() and not self._down.is_set() else status

    def stub_pids(self) -> dict[str, int]:
        """Return the process of each model that runs in a stub."""
        run = self._run
        pids = {name: process_registry.serving_pid(name, run) for name in self.models} if run else {}
        return {name: pid for name, pid in pids.items() if pid is not None}

    @property
    def _process(self) -> subprocess.Popen[bytes] | None:
        return None if self._triton is None else self._triton.process

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise EngineError("the server has not been started")
        return self._process

    def _kill(self) -> None:
        if self._triton is not None:
            self._triton.kill()

    def _folder(self) -> Path:
        if self._run is None:
            raise EngineError("the server has not been started, or has been stopped")
        return self._run

    def reload(self, name: str) -> None:
        """Unload a model and load it again, with the repository's present files.

        Its jobs under way end, or fail with its name; new ones are refused until it is loaded.

        Raises:
            ModelUnavailableError: it does not load, or not in time; the message has the reason.
        """
        with self._reloading:
            self._reload(name)

    def _watch(self) -> None:
        """Reload models whose process died or hangs, and restart a server that crashed or takes no jobs."""
        stubs, unread = self._watches()
        while not self._stopping.wait(WATCH_S):
            self._kill_if_hung()
            if not self._alive():
                self._kill()  # stubs that wait for the dead server hold their GIL and cannot leave
                if not self._restart_server():
                    self._down.set()
                    break
                stubs, unread = self._watches()
            if self._grant is not None:
                self._grant.reap()
            if unread.stuck() and not self._stopping.is_set():
                log.error("answers that nobody reads kept the server from taking jobs; starting it anew")
                self._renewing.set()
                self._kill()
                self._started().wait()
                continue
            self._end_unloaded()
            for name in self.stub_pids():
                self._restart_model(name, stubs)
        self._probe.close()
        self._started().wait()  # the kernel kills a process when the thread that started it ends (PR_SET_PDEATHSIG)

    def _end_unloaded(self) -> None:
        """Kill what Triton leaves running of models that it unloaded, also for another than this supervisor."""
        if self._lingering is not None:
            for name in self._api.unloaded(self.models):
                self._lingering.unloading(name)
            self._lingering.kill()

    def _kill_if_hung(self) -> None:
        if self._alive() and self._probe.hung() and not self._stopping.is_set():
            log.error("the server gave no sign of life for %g s and is killed", self.options.hang_s)
            self._hung.set()
            os.kill(self.pid, signal.SIGKILL)
            self._started().wait()

    def _watch_meanwhile(self) -> None:
        """Notice a hang while the watcher itself waits for a model."""
        if threading.current_thread() is self._watcher:
            self._kill_if_hung()

    def _alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _watches(self) -> tuple[StubHealth, AbandonedResponses]:
        run = self._folder()
        return StubHealth(run, self.pid, self.options.hang_s), AbandonedResponses(run, self.pid, self.live_jobs)

    def _restart_server(self) -> bool:
        """Restart a Triton that crashed or that we ended; false if it stays down. Its jobs have failed."""
        run, status = self._folder(), self._started().returncode
        if self._triton is None or (run / process_registry.DRAIN).exists():
            return False
        self._lose(self.models)
        if not self._renewing.is_set():
            hung = self._hung.is_set()
            if not self._crashes.may_restart(status, hung=hung):
                return False
            fate = "hung" if hung else f"crashed ({signal.Signals(-status).name})"
            log.error("Triton %s, its jobs have failed; starting it anew", fate)
        if self._losses is not None:
            self._losses.server_restarted()
        process_registry.forget(run)
        unread_responses.forget_full(run)
        remove_unused(run, self._owner)
        try:
            self._triton.start(self._stopping.is_set)
        except (HeartvoiceError, KeyboardInterrupt, OSError) as error:
            log.error("Triton was not started anew: %s", error)
            self._kill()
            return False
        self._renewing.clear()
        self._hung.clear()
        self._probe.restart()
        return True

    def _lose(self, models: Sequence[str]) -> None:
        if self._losses is not None:
            self._losses.jobs(models)

    def _restart_model(self, name: str, stubs: StubHealth) -> None:
        with self._reloading:  # another thread's reload has ended
            pid = process_registry.serving_pid(name, self._folder())
            fault = None if pid is None else stubs.diagnose(name, pid)
            if not (pid and fault) or self._stopping.is_set() or not self._alive():
                return
            log.warning("the process of %s (pid %d) %s; reloading the model", name, pid, fault)
            if fault != DIED:
                os.kill(pid, signal.SIGKILL)
            if self._lost_with.get(name) != pid:  # at the first of several tries
                self._lost_with[name] = pid
                self._lose([name])
            try:
                self._reload(name)
                self.restarts[name] = self.restarts.get(name, 0) + 1
                if self._losses is not None:
                    self._losses.restarted(name)
            except ModelUnavailableError as error:
                log.error("%s; trying again in %g s", error, stubs.failed(name))

    def _reload(self, name: str) -> None:
        if self._lingering is not None:
            self._lingering.unloading(name)
        try:
            self._api.call(UNLOAD, name, UNLOAD_TIMEOUT_S, self._watch_meanwhile)
            self._api.call(LOAD, name, self.options.start_timeout_s, self._watch_meanwhile)
        except grpc.RpcError as error:
            raise ModelUnavailableError(f"{name}: reload failed: {error.details()}") from error
        if self._run is not None:
            remove_unused(self._run, self._owner)
            restrict_permissions(self._owner, self._run)  # the model's new region

    def _withdraw(self) -> None:
        """Have the server count as not ready, before it refuses jobs."""
        try:
            self._api.call(UNLOAD, ABOUT, WITHDRAW_S)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:  # which is one that has ended
                log.warning("the server still counts as ready: %s", error.details())
