"""Jobs: admission, cancellation, and responses that may be sent from any thread."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from heartvoice.arrays import Array
from heartvoice.contracts.types import NUMPY_DTYPE, ModelSpec
from heartvoice.errors import (
    DeadlineError,
    EngineError,
    HeartvoiceError,
    InvalidRequestError,
    ModelUnavailableError,
    RequestCancelledError,
    VoiceNotFoundError,
)
from heartvoice.redaction import traceback_without_messages
from heartvoice.resource_errors import as_resource_error, check_shared_memory, payload_bytes
from heartvoice.serving import process_registry
from heartvoice.serving.metrics import Metrics
from heartvoice.serving.workarounds.acknowledgements import AckReceiver
from heartvoice.serving.workarounds.deferred_release import FINISHED_STREAMS
from heartvoice.serving.workarounds.unread_responses import UnreadResponseLimit

log = logging.getLogger(__name__)

POLL_S = 0.02
"""How often a job's cancellation is looked at."""
OWNER_POLL_S = 0.25
"""How often the owner's process and the server's flags are looked at."""
LOST_S = 1.0
"""A send takes milliseconds; one that takes so long, in a job that has to end, will not return."""
HEARTBEAT_S = 1.0
"""A job with events says at least this often that it lives."""

# The stub fills the module `triton_python_backend_utils` after it has imported the model: no use of it at import time.


def triton_code(error: HeartvoiceError) -> Any:
    """The code that Triton knows for one of our errors."""
    codes = pb_utils.TritonError
    for cls, code in (
        (InvalidRequestError, codes.INVALID_ARG),
        (VoiceNotFoundError, codes.NOT_FOUND),
        (ModelUnavailableError, codes.UNAVAILABLE),
        (RequestCancelledError, codes.CANCELLED),
        (DeadlineError, codes.CANCELLED),
    ):
        if isinstance(error, cls):
            return code
    return codes.INTERNAL


def text_tensor(name: str, text: str | bytes) -> Any:
    """A BYTES [1] output."""
    return pb_utils.Tensor(name, np.array([text.encode() if isinstance(text, str) else text], dtype=np.object_))


class Job:
    """One request: its inputs, its cancellation and its responses."""

    def __init__(self, spec: ModelSpec, request: Any, on_end: Callable[[Job, str], None]) -> None:
        """`on_end` hears the outcome (ok, or an error's code) just before the caller does."""
        self.spec = spec
        self._on_end = on_end
        self.inputs: dict[str, Array] = {t.name(): t.as_numpy() for t in request.inputs()}
        self._lock = threading.Lock()
        self._closed = False
        self._cancelled = threading.Event()
        self._began = self._last_sent = time.monotonic()
        self._sending_since: float | None = None
        self._last_event: dict[str, Any] = {"stage": "queued", "done": 0, "total": 1}
        self._owner_checked = self._began
        self.wants_events = bool(self.inputs["events"][0]) if "events" in self.inputs else False
        self._receipts = AckReceiver(self.job_id) if self.inner and spec.decoupled else None
        self._sender = request.get_response_sender()  # last: what fails before is answered by Triton

    @property
    def inner(self) -> bool:
        """Whether another model calls, on behalf of a job that has been admitted there."""
        return "owner_pid" in self.inputs

    @property
    def age_s(self) -> float:
        """Seconds since the request came."""
        return time.monotonic() - self._began

    @property
    def job_id(self) -> bytes:
        """The caller's name for the job, or b"": any bytes, so that no caller's can be unreadable to the others."""
        return bytes(self.inputs["job_id"][0]) if "job_id" in self.inputs else b""

    def cancel(self) -> None:
        """Ask the job to end."""
        self._cancelled.set()

    def cancelled(self) -> bool:
        """Whether the job has been asked to end. Cheap: the watcher does the looking."""
        return self._cancelled.is_set()

    def check(self) -> None:
        """Raise RequestCancelledError if the job has been asked to end."""
        if self.cancelled():
            raise RequestCancelledError(f"{self.spec.name}: cancelled")

    def poll(self) -> None:
        """Look at every reason to end; send a heartbeat if one is due. Called by the watcher."""
        now = time.monotonic()
        # Asking after the final flag kills the whole server with SIGSEGV (2.51), hence the lock and the flag. Never
        # waiting for it: a send to a caller that was killed does not return, and the other jobs need the watcher.
        if self._lock.acquire(blocking=False):
            try:
                if self._closed:
                    return
                mark = FINISHED_STREAMS.checkpoint()
                if self._sender.is_cancelled():
                    self._cancelled.set()  # and from now on it says so without asking
                else:
                    FINISHED_STREAMS.release(mark)
            finally:
                self._lock.release()
        if now - self._owner_checked >= OWNER_POLL_S:
            self._owner_checked = now
            owner = int(self.inputs["owner_pid"][0]) if "owner_pid" in self.inputs else None
            if process_registry.flagged(process_registry.STOP) or (
                owner is not None and not process_registry.is_alive(owner)
            ):
                self._cancelled.set()
        idle = self._sending_since is None and now - self._last_sent >= HEARTBEAT_S
        if self.wants_events and idle and self._receipts is None:  # it would wait for a receipt
            self.send_event(self._last_event)

    def lost(self) -> bool:
        """Whether the job has to end and its thread cannot: it sends to a caller that was killed."""
        since = self._sending_since
        return self.cancelled() and since is not None and time.monotonic() - since > LOST_S

    def send(self, outputs: Mapping[str, Array | str | bytes]) -> None:
        """Send one response, checked against the contract. Ignored once the job is closed."""
        tensors = [self._pack(name, value) for name, value in outputs.items()]
        self._put(pb_utils.InferenceResponse(output_tensors=tensors))

    def send_event(self, event: Mapping[str, Any]) -> None:
        """Send a progress event, if the caller wants any."""
        self._last_event = dict(event)
        if self.wants_events:
            stamped = {**event, "seconds": round(time.monotonic() - self._began, 3)}
            self.send({"EVENT": json.dumps(stamped)})

    def fail(self, error: BaseException) -> None:
        """Answer with an error and close. Streams and BLS carry only its text intact, so the code stands in it."""
        if not isinstance(error, HeartvoiceError) or isinstance(error, EngineError):
            with suppress(MemoryError):  # a traceback takes some
                log.error("%s: failed, %s", self.spec.name, traceback_without_messages(error))
            error = as_resource_error(self.spec.name, error) or error
        if not isinstance(error, HeartvoiceError):
            error = EngineError(f"{self.spec.name}: internal error ({type(error).__name__}); see the server's log")
        # Flag and error together: after an error, a caller by BLS never sees a final flag that comes alone (2.51).
        failure = pb_utils.InferenceResponse(error=pb_utils.TritonError(error.wire(), triton_code(error)))
        self._end(failure, error.code)

    def answer(self, outputs: Mapping[str, Array | str | bytes]) -> None:
        """Send the only response of a unary model.

        Raises:
            ModelUnavailableError: there is no shared memory for it.
        """
        # Before the send: one that fails takes the final flag down with it, and the caller waits for ever. (Flag and
        # response sent apart kill the server with SIGSEGV, 2.51.)
        check_shared_memory(self.spec.name, sum(payload_bytes(value) for value in outputs.values()))
        tensors = [self._pack(name, value) for name, value in outputs.items()]
        self._end(pb_utils.InferenceResponse(output_tensors=tensors), "ok")

    def fail_safely(self, error: BaseException) -> None:
        """`fail`, and nothing is raised, however little memory there is.

        An exception that leaves `execute` when its request's sender has been used kills the whole server with SIGSEGV
        (2.51), and one that leaves a worker's loop takes the worker along.
        """
        try:
            self.fail(error)
        except Exception:
            with suppress(Exception):
                self.close()

    def close(self) -> None:
        """Send the final flag, unless the job has ended already."""
        self._end(None, "ok")

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Hold the lock, and what was sent before has been taken: see `receipts`."""
        while True:
            with self._lock:
                if self._receipts is None or self._closed or self._receipts.complete():
                    yield
                    return
            self._receipts.wait(POLL_S)

    def _end(self, response: Any, outcome: str) -> None:
        with self._turn():
            if self._closed:
                return
            self._closed = True
            # Before the flag: a caller that has its answer may stop the server, and a metric sent then hangs the stub.
            with suppress(MemoryError):  # the answer is worth more than a metric
                self._on_end(self, outcome)
            final = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
            self._sending_since = time.monotonic()
            if response is None:
                self._sender.send(flags=final)
            else:
                self._sender.send(response, flags=final)
            if self._receipts is not None:
                self._receipts.close()

    def _put(self, response: Any) -> None:
        with self._turn():
            if not self._closed:
                self._last_sent = self._sending_since = time.monotonic()
                self._sender.send(response)
                self._sending_since = None
                if self._receipts is not None:
                    self._receipts.sent()

    def _pack(self, name: str, value: Array | str | bytes) -> Any:
        spec = self.spec.output(name)  # a wrong name or dtype would pass Triton silently
        if isinstance(value, str | bytes):
            return text_tensor(name, value)
        return pb_utils.Tensor(name, np.ascontiguousarray(value, dtype=NUMPY_DTYPE[spec.dtype]))


class JobQueue:
    """Runs jobs in threads: at most `max_jobs` at once, `max_queue` waiting, the rest refused with the numbers.

    Calls of other models have as much room of their own: an accepted song must not fail because callers from outside
    fill one of its stages. All wait in one line.

    With `thread_per_job` those that would wait have threads, too: the model itself makes them wait.
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
    ) -> None:
        self._spec, self._work, self._max_jobs, self._max_queue = spec, work, max_jobs, max_queue
        self._unread = unread
        self._waiting: deque[Job] = deque()
        self._live: set[Job] = set()
        self._abandoned: set[Job | None] = set()
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)
        self.metrics = Metrics(spec.name)
        self.metrics.live(0)  # a process that died left its number behind
        for _ in range(max_jobs + max_queue if thread_per_job else max_jobs):
            self._start_worker()
        threading.Thread(target=self._watch, name=f"{spec.name}-watch", daemon=True).start()

    def submit(self, job: Job) -> None:
        """Admit the job, or refuse it.

        Raises:
            ModelUnavailableError: as many jobs as allowed run and wait already, or too much waits to be read.
        """
        if not job.inner:  # from outside, not for a job that was admitted before
            if process_registry.flagged(process_registry.DRAIN):
                raise ModelUnavailableError(f"{self._spec.name}: the server is stopping and takes no new jobs")
            if self._unread is not None:
                self._unread.check()
        with self._lock:
            if sum(other.inner == job.inner for other in self._live) >= self._max_jobs + self._max_queue:
                self.metrics.refused()
                raise ModelUnavailableError(
                    f"{self._spec.name}: {self._max_jobs} jobs running and {self._max_queue} waiting, "
                    "no room for more; try again later"
                )
            self._live.add(job)
            self._waiting.append(job)
            self.metrics.live(len(self._live))
            self._arrived.notify()

    def cancel(self, job_id: bytes) -> None:
        """Cancel every job of that name.

        Raises:
            InvalidRequestError: no name, which is that of all jobs that have none.
        """
        if not job_id:
            raise InvalidRequestError("cancel: expected a job_id of at least 1 byte, got none")
        with self._lock:
            jobs = [job for job in self._live if job.job_id == job_id]
        for job in jobs:
            job.cancel()

    def _start_worker(self) -> None:
        threading.Thread(target=self._worker, name=f"{self._spec.name}-job", daemon=True).start()

    def _replace_worker(self, job: Job) -> None:
        """Give a lost job's place to another thread; its own stays in a send that does not return."""
        log.warning(
            "%s: a job's caller was killed in the middle of a response; its thread is left behind", job.spec.name
        )
        self._abandoned.add(job)
        self.ended(job, "LOST")
        self._start_worker()

    def ended(self, job: Job, outcome: str) -> None:
        """Take a job off the list and count it; nothing to do for one that was refused or abandoned."""
        with self._lock:
            if job not in self._live:
                return
            self._live.discard(job)
            self.metrics.live(len(self._live))
        self.metrics.finished(outcome)

    def _worker(self) -> None:
        job: Job | None = None
        while job not in self._abandoned:
            with self._arrived:
                self._arrived.wait_for(lambda: self._waiting)
                job = self._waiting.popleft()
            try:
                job.check()
                self.metrics.started(job.age_s)
                self._work(job)
            except BaseException as error:  # whatever happened, the caller gets an answer
                job.fail_safely(error)
            finally:
                with suppress(Exception):
                    job.close()

    def _watch(self) -> None:
        while True:
            time.sleep(POLL_S)
            with self._lock:
                jobs = list(self._live)
            FINISHED_STREAMS.release(0)
            for job in jobs:
                job.poll()
                if job.lost():
                    self._replace_worker(job)
                elif job.cancelled():
                    self._drop(job)

    def _drop(self, job: Job) -> None:
        """End a cancelled job that still waits: it must not keep its place until a worker is free."""
        with self._lock:
            if job not in self._waiting:
                return
            self._waiting.remove(job)
        error = RequestCancelledError(f"{self._spec.name}: cancelled before its turn")
        # In a thread of its own: the send may never return (see `Job.lost`), and the watcher is needed.
        threading.Thread(target=job.fail_safely, args=(error,), name=f"{self._spec.name}-drop", daemon=True).start()
