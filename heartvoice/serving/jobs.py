"""Jobs of a model: admission, cancellation, and responses from any thread."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from heartvoice.arrays import Array
from heartvoice.contracts.types import NUMPY_DTYPE, ModelSpec
from heartvoice.errors import (
    EngineError,
    HeartvoiceError,
    InvalidRequestError,
    ModelUnavailableError,
    RequestCancelledError,
    codes_of,
)
from heartvoice.redaction import traceback_without_messages
from heartvoice.resource_errors import as_resource_error
from heartvoice.serving import logs, process_registry
from heartvoice.serving.idle_memory import IdleMemory
from heartvoice.serving.job_record import JobRecord
from heartvoice.serving.live_jobs import LiveJobs
from heartvoice.serving.metrics import Metrics
from heartvoice.serving.workarounds import escaped_exceptions
from heartvoice.serving.workarounds.acknowledgements import MORE_INPUTS, AckReceiver
from heartvoice.serving.workarounds.array_frames import large_arrays
from heartvoice.serving.workarounds.deferred_release import FINISHED_STREAMS
from heartvoice.serving.workarounds.guarded_sender import GuardedSender
from heartvoice.serving.workarounds.response_space import check_shared_memory, payload_bytes
from heartvoice.serving.workarounds.stuck_sends import StuckSends, fail_in_thread
from heartvoice.serving.workarounds.unread_responses import UnreadResponseLimit

log = logging.getLogger(__name__)

POLL_S = 0.02
"""Seconds between two looks of the watcher at each job."""
OWNER_POLL_S = 0.25
"""Seconds between two looks at the owner's process and the server's flags."""
EVENT_S = 1.0
"""A job with events sends one at least this often."""


def triton_code(error: HeartvoiceError) -> Any:
    """Return Triton's code for an error."""
    return getattr(pb_utils.TritonError, codes_of(error).triton)


def text_tensor(name: str, text: str | bytes) -> Any:
    """Return a BYTES [1] output."""
    return pb_utils.Tensor(name, np.array([text.encode() if isinstance(text, str) else text], dtype=np.object_))


class Job:
    """One request: its inputs, its cancellation and its responses. Safe in all threads."""

    def __init__(self, spec: ModelSpec, request: Any, on_end: Callable[[Job, str], None]) -> None:
        """Read a request.

        Args:
            spec: the model.
            request: Triton's request.
            on_end: called with the outcome (ok, or an error's code) before the final response is sent.
        """
        self.spec = spec
        self.record = JobRecord(spec, request.request_id())
        self._on_end = on_end
        self.inputs: dict[str, Array] = {t.name(): t.as_numpy() for t in request.inputs()}
        self._cancelled = threading.Event()
        self._owner_checked = time.monotonic()
        self._last_event: dict[str, Any] = {"stage": "queued", "done": 0, "total": 1}
        self.wants_events = bool(self.inputs["events"][0]) if "events" in self.inputs else False
        self._acks = AckReceiver(self.job_id) if self.is_internal and spec.decoupled else None
        self._sender = GuardedSender(request, self._acks)  # last: Triton answers what fails before

    @property
    def name(self) -> str:
        """The model's name."""
        return self.spec.name

    @property
    def is_internal(self) -> bool:
        """True if another model calls, for a job that was admitted there."""
        return "owner_pid" in self.inputs

    @property
    def is_cancel(self) -> bool:
        """True if the request ends another job."""
        return "cancel" in self.inputs

    @property
    def job_id(self) -> bytes:
        """The caller's name for the job, or b"". Any bytes, so that no name is unreadable to other callers."""
        return bytes(self.inputs["job_id"][0]) if "job_id" in self.inputs else b""

    @property
    def sending_s(self) -> float:
        """Seconds that the send under way has taken; 0 without one."""
        return self._sender.sending_s

    def receive_inputs(self) -> None:
        """Take the inputs that another model sends beside the request (see `array_frames`).

        Raises:
            ModelUnavailableError: it has died.
        """
        if self._acks is not None and self.job_id.endswith(MORE_INPUTS):
            try:
                self.inputs |= self._acks.inputs()
            except ConnectionError as error:
                raise ModelUnavailableError(f"{self.spec.name}: its inputs did not come: {error}") from error

    def forget_inputs(self, *names: str) -> None:
        """Free inputs that are no longer needed."""
        for name in names:
            self.inputs.pop(name, None)

    def cancel(self) -> None:
        """Ask the job to end."""
        self._cancelled.set()

    def cancelled(self) -> bool:
        """Return whether the job was asked to end. Cheap: `refresh` looks for reasons."""
        return self._cancelled.is_set()

    def check(self) -> None:
        """Raise RequestCancelledError if the job was asked to end."""
        if self.cancelled():
            raise RequestCancelledError(f"{self.spec.name}: cancelled")

    def refresh(self) -> None:
        """Look for reasons to end, and send a progress event if one is due. Called by the watcher; never blocks."""
        if self._sender.closed:
            return
        if self._sender.is_cancelled():
            self._cancelled.set()
        now = time.monotonic()
        if now - self._owner_checked >= OWNER_POLL_S:
            self._owner_checked = now
            owner = int(self.inputs["owner_pid"][0]) if "owner_pid" in self.inputs else None
            if process_registry.flagged(process_registry.STOP) or (
                owner is not None and not process_registry.is_alive(owner)
            ):
                self._cancelled.set()
        if self.wants_events and self._sender.idle_s >= EVENT_S:
            self.send_event(self._last_event)

    def send(self, outputs: Mapping[str, Array | str | bytes]) -> None:
        """Send one response, checked against the contract. No-op once the job is closed."""
        self.record.sent(outputs)
        apart = large_arrays(outputs) if self._sender.sends_arrays else {}
        if len(apart) == len(outputs):  # a response needs something
            apart = {}
        tensors = [self._pack(name, value) for name, value in outputs.items() if name not in apart]
        arrays = {name: self._checked(name, value) for name, value in apart.items()}
        self._sender.send(pb_utils.InferenceResponse(output_tensors=tensors), arrays if outputs else None)

    def send_event(self, event: Mapping[str, Any]) -> None:
        """Send a progress event, if the caller asked for events."""
        self._last_event = dict(event)
        if self.wants_events:
            stamped = {**event, "seconds": round(self.record.seconds, 3)}
            self.send({"EVENT": json.dumps(stamped)})

    def answer(self, outputs: Mapping[str, Array | str | bytes]) -> None:
        """Send the only response of a unary model, and close.

        Raises:
            ModelUnavailableError: there is no shared memory for it.
        """
        check_shared_memory(self.spec.name, sum(payload_bytes(value) for value in outputs.values()))
        tensors = [self._pack(name, value) for name, value in outputs.items()]
        self.record.sent(outputs)
        self._finish(pb_utils.InferenceResponse(output_tensors=tensors), "ok")

    def fail(self, error: BaseException) -> None:
        """Answer with an error, and close. The text begins with the code: streams and BLS carry only the text."""
        if not isinstance(error, HeartvoiceError) or isinstance(error, EngineError):
            with suppress(MemoryError):  # a traceback takes some
                log.error("%s: failed, %s", self.spec.name, traceback_without_messages(error))
            error = as_resource_error(self.spec.name, error) or error
        if not isinstance(error, HeartvoiceError):
            error = EngineError(f"{self.spec.name}: internal error ({type(error).__name__}); see the server's log")
        failure = pb_utils.InferenceResponse(error=pb_utils.TritonError(error.wire(), triton_code(error)))
        self._finish(failure, error.code)

    def fail_safely(self, error: BaseException) -> None:
        """Call `fail`; raises nothing."""
        escaped_exceptions.contain(lambda: self.fail(error), self.close)

    def close(self) -> None:
        """End the responses. No-op if the job has ended already."""
        self._finish(None, "ok")

    def _finish(self, response: Any | None, outcome: str) -> None:
        def count() -> None:
            with suppress(MemoryError):  # the answer is worth more than a metric
                self._on_end(self, outcome)

        self._sender.finish(response, count)

    def _pack(self, name: str, value: Array | str | bytes) -> Any:
        if isinstance(value, str | bytes):
            return text_tensor(self.spec.output(name).name, value)
        checked = self._checked(name, value)
        return pb_utils.Tensor(name, checked)

    def _checked(self, name: str, value: Array) -> Array:
        spec = self.spec.output(name)  # Triton does not notice a wrong name or dtype
        if not np.isfinite(value).all():  # of whatever stage: no caller gets NaN for a sound
            raise EngineError(f"{self.spec.name}: {name}: expected finite values, got NaN or Inf")
        return np.ascontiguousarray(value, dtype=NUMPY_DTYPE[spec.dtype])


class JobQueue:
    """Runs jobs in threads: `max_jobs` at once and `max_queue` waiting; more are refused.

    Calls of other models are counted apart, with the same limits: an accepted song must not fail because callers from
    outside fill one of its stages. All wait in one queue.
    """

    def __init__(
        self,
        spec: ModelSpec,
        work: Callable[[Job], None],
        max_jobs: int,
        max_queue: int,
        *,
        thread_per_job: bool = False,
        unread: UnreadResponseLimit | None = None,
        memory: IdleMemory | None = None,
    ) -> None:
        """Start the threads.

        Args:
            spec: the model.
            work: does one job; an exception is the job's answer.
            max_jobs: jobs that run at once.
            max_queue: jobs that wait.
            thread_per_job: jobs that wait have threads, too, because the model itself makes them wait.
            unread: refuses jobs while too many responses wait to be read.
            memory: is told of each job's end.
        """
        self._spec, self._work, self._max_jobs, self._max_queue = spec, work, max_jobs, max_queue
        self._unread = unread
        self._waiting: deque[Job] = deque()
        self._live: set[Job] = set()
        self._stuck = StuckSends()
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)
        self._memory = memory
        self.metrics = Metrics(spec.name)
        self.metrics.live(0)  # the gauge of a process that died
        run = process_registry.folder()
        self._shown = None if run is None else LiveJobs(spec.name, run)
        for _ in range(max_jobs + max_queue if thread_per_job else max_jobs):
            self._start_worker()
        threading.Thread(target=self._watch, name=f"{spec.name}-watch", daemon=True).start()

    def submit(self, job: Job) -> None:
        """Admit the job, or refuse it.

        Raises:
            ModelUnavailableError: too many jobs run and wait, too much waits to be read, or the server stops.
        """
        if not job.is_internal:
            if process_registry.flagged(process_registry.DRAIN):
                raise ModelUnavailableError(f"{self._spec.name}: the server is stopping and takes no new jobs")
            if self._unread is not None:
                self._unread.check()
        with self._lock:
            if sum(other.is_internal == job.is_internal for other in self._live) >= self._max_jobs + self._max_queue:
                self.metrics.refused()
                raise ModelUnavailableError(
                    f"{self._spec.name}: {self._max_jobs} jobs running and {self._max_queue} waiting, "
                    "no room for more; try again later"
                )
            self._live.add(job)
            self._waiting.append(job)
            self._show_live()
            self._arrived.notify()

    def cancel(self, job_id: bytes) -> None:
        """Cancel every job with that name.

        Raises:
            InvalidRequestError: the name is empty; it would cancel all jobs that have none.
        """
        if not job_id:
            raise InvalidRequestError("cancel: expected a job_id of at least 1 byte, got none")
        with self._lock:
            jobs = [job for job in self._live if job.job_id == job_id]
        for job in jobs:
            job.cancel()

    def _start_worker(self) -> None:
        threading.Thread(target=self._worker, name=f"{self._spec.name}-job", daemon=True).start()

    def ended(self, job: Job, outcome: str) -> None:
        """Remove a job from the live ones, count it and log it. A refused job is logged only."""
        with self._lock:
            was_live = job in self._live
            if was_live:
                self._live.discard(job)
                self._show_live()
        if was_live:
            self.metrics.finished(outcome, job.record)
        if not (job.is_internal or job.is_cancel or job.record.logged):
            job.record.logged = True
            logs.write_job(job.record.facts(outcome))

    def _show_live(self) -> None:
        """Report the live jobs; the lock is held."""
        self.metrics.live(len(self._live))
        if self._shown is not None:
            named = [(job.record.request_id, job.record.wall) for job in self._live if not job.is_internal]
            self._shown.set(len(self._live), named)

    def _worker(self) -> None:
        while True:
            with self._arrived:
                self._arrived.wait_for(lambda: self._waiting)
                job = self._waiting.popleft()
            try:
                job.check()
                job.record.started()
                self.metrics.started(job.record.queue_s or 0.0)
                self._work(job)
            except BaseException as error:  # the caller must get an answer
                job.fail_safely(error)
            finally:
                with suppress(Exception):
                    job.close()
            if self._stuck.is_abandoned(job):
                return
            del job  # its inputs, up to a whole recording, must not wait for the next one
            if self._memory is not None:
                self._memory.worked()

    def _watch(self) -> None:
        while True:
            time.sleep(POLL_S)
            with self._lock:
                jobs = list(self._live)
            FINISHED_STREAMS.release(0)
            while jobs:
                self._look_at(jobs.pop())  # the list must not keep ended jobs, whose inputs are large

    def _look_at(self, job: Job) -> None:
        job.refresh()
        if self._stuck.abandon_if_stuck(job):
            self.ended(job, "LOST")
            self._start_worker()
        elif job.cancelled():
            self._drop(job)

    def _drop(self, job: Job) -> None:
        """End a cancelled job that still waits, so that it frees its place at once."""
        with self._lock:
            if job not in self._waiting:
                return
            self._waiting.remove(job)
        fail_in_thread(job, RequestCancelledError(f"{self._spec.name}: cancelled before its turn"))
