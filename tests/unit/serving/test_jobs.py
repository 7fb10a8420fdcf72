"""Admission: who is refused, who is not, and what the metrics say of it."""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
import uuid
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from heartvoice.contracts.models import SVC
from heartvoice.errors import EngineError, ModelUnavailableError
from heartvoice.serving.workarounds.acknowledgements import AckSender
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from heartvoice.serving.jobs import JobQueue

Page = Counter[str]


def family(page: Page) -> type:
    """Triton's class of metrics, which writes on a page of the test's own: workers of other tests may still run."""

    class Family:
        COUNTER, GAUGE = "counter", "gauge"

        def __init__(self, name: str, description: str, kind: str) -> None:
            self.name = name

        def Metric(self, labels: dict[str, str]) -> Any:
            name = self.name
            return SimpleNamespace(
                increment=lambda value: page.update({name: value}), set=lambda value: page.__setitem__(name, value)
            )

    return Family


@pytest.fixture
def page() -> Page:
    return Counter()


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch, page: Page) -> Iterator[ModuleType]:
    """The module, over a fake of Triton's own."""
    backend: Any = ModuleType("triton_python_backend_utils")
    backend.MetricFamily = family(page)
    backend.TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1
    backend.InferenceResponse = SimpleNamespace
    monkeypatch.setitem(sys.modules, backend.__name__, backend)
    names = (
        "heartvoice.serving.workarounds.metric_families", "heartvoice.serving.workarounds.guarded_sender",
        "heartvoice.serving.metrics", "heartvoice.serving.jobs",
    )  # fmt: skip
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    from heartvoice.serving import jobs as module
    from heartvoice.serving.workarounds import guarded_sender, metric_families

    for each in (metric_families, guarded_sender, module):
        monkeypatch.setattr(each, "pb_utils", backend)
    yield module
    for name in names:
        sys.modules.pop(name, None)


def request(**inputs: Any) -> Any:
    tensors = [SimpleNamespace(name=lambda n=name: n, as_numpy=lambda v=value: v) for name, value in inputs.items()]
    sender = SimpleNamespace(is_cancelled=lambda: False, send=lambda *_, **__: None)
    return SimpleNamespace(inputs=lambda: tensors, get_response_sender=lambda: sender, request_id=lambda: "r1")


@pytest.fixture
def held(jobs: ModuleType) -> Iterator[tuple[JobQueue, Callable[[], None], Callable[[], None]]]:
    """A queue of 1 running and 2 waiting; what submits a call from outside to it, and what submits another model's."""
    go = threading.Event()
    queue = jobs.JobQueue(SVC, lambda job: go.wait(60), 1, 2)
    own = np.array([os.getpid()])

    def submit(**inputs: Any) -> None:
        queue.submit(jobs.Job(SVC, request(**inputs), queue.ended))

    yield queue, submit, lambda: submit(owner_pid=own)
    go.set()


Held = tuple[Any, Callable[[], None], Callable[[], None]]


@pytest.mark.parametrize("name", ["VOCALS", "STATE"])
def test_nan_never_leaves_a_model(jobs: ModuleType, name: str) -> None:
    job = jobs.Job(SVC, request(), lambda *_: None)
    for way in (job.send, job.answer):
        with pytest.raises(EngineError, match=f"svc: {name}: expected finite values, got NaN or Inf"):
            way({name: np.array([0.0, np.nan], np.float32)})


def test_a_full_queue_refuses_with_the_numbers_and_counts_it(held: Held, page: Page) -> None:
    _, outside, _ = held
    for _ in range(3):
        outside()
    with pytest.raises(ModelUnavailableError, match="svc: 1 jobs running and 2 waiting, no room"):
        outside()
    assert page["heartvoice_jobs_refused_total"] == 1


def test_callers_from_outside_take_no_room_from_other_models(held: Held, page: Page) -> None:
    """An accepted cover would fail in its stage `svc` otherwise."""
    _, outside, inner = held
    for _ in range(3):
        outside()
    for _ in range(3):
        inner()
    with pytest.raises(ModelUnavailableError, match="no room"):
        inner()
    assert page["heartvoice_jobs_live"] == 6


def test_a_worker_that_waits_keeps_no_job(jobs: ModuleType) -> None:
    """Its inputs may be a whole recording."""
    queue = jobs.JobQueue(SVC, lambda job: None, 1, 2)
    job = jobs.Job(SVC, request(), queue.ended)
    ended = weakref.ref(job)
    queue.submit(job)
    del job
    wait_until(lambda: gc.collect() >= 0 and ended() is None, 60.0, "the job is kept")


def test_waiting_is_counted_when_a_job_begins(held: Held, page: Page) -> None:
    _, outside, _ = held
    outside()
    outside()
    wait_until(lambda: page["heartvoice_jobs_started_total"] == 1, 60.0, "the first job begins")
    assert page["heartvoice_jobs_queue_seconds_total"] > 0


def test_another_models_stream_sends_the_next_when_the_last_was_taken(jobs: ModuleType) -> None:
    """Otherwise Triton's stub stands still: see `heartvoice.serving.workarounds.acknowledgements`."""
    job_id, sent = uuid.uuid4().hex, []
    call = request(owner_pid=np.array([os.getpid()]), job_id=np.array([job_id.encode()], object))
    call.get_response_sender().send = lambda *_, **flags: sent.append(flags)
    with AckSender(job_id) as receiver:
        job = jobs.Job(SVC, call, lambda *_: None)

        def work() -> None:
            job.send({})
            job.send({})
            job.close()

        thread = threading.Thread(target=work)
        thread.start()
        for n in (1, 2):
            wait_until(lambda n=n: len(sent) == n, 60.0, "not sent")  # type: ignore[misc]
            job.refresh()  # does not wait
            time.sleep(0.1)
            assert len(sent) == n, "sent before the last was taken"
            receiver.take()
        thread.join(60)
        assert sent == [{}, {}, {"flags": 1}]


def test_callers_from_outside_are_not_waited_for(jobs: ModuleType) -> None:
    sent: list[Any] = []
    call = request(job_id=np.array([b"mine"], object))
    call.get_response_sender().send = lambda *_, **flags: sent.append(flags)
    with AckSender("mine"):
        job = jobs.Job(SVC, call, lambda *_: None)
        for _ in range(3):
            job.send({})
        job.close()
    assert len(sent) == 4


def test_nothing_is_sent_or_asked_after_the_final_flag(jobs: ModuleType) -> None:
    """The guard of `heartvoice.serving.workarounds.guarded_sender`."""
    used: list[str] = []
    call = request(events=np.array([True]))
    sender = call.get_response_sender()
    sender.send = lambda *_, **flags: used.append(f"send {flags}")

    def is_cancelled() -> bool:
        used.append("ask")
        return False

    sender.is_cancelled = is_cancelled
    ended: list[str] = []
    job = jobs.Job(SVC, call, lambda _, outcome: ended.append(outcome))
    job.refresh()
    job.answer({})
    assert used == ["ask", "send {'flags': 1}"], "the answer and the flag go together"
    job.send({})
    job.close()
    job.refresh()
    assert len(used) == 2
    assert ended == ["ok"]


def test_an_answer_that_fails_raises_nothing(jobs: ModuleType) -> None:
    """See `heartvoice.serving.workarounds.escaped_exceptions`."""
    call, flags = request(), []

    def send(*response: Any, **given: Any) -> None:
        flags.append(given)
        raise MemoryError

    call.get_response_sender().send = send
    jobs.Job(SVC, call, lambda *_: None).fail_safely(ValueError("x"))
    assert len(flags) <= 1, "the sender was used again after its final flag"


def test_a_job_stuck_in_a_send_gives_its_place_to_another(
    jobs: ModuleType, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    """See `heartvoice.serving.workarounds.stuck_sends`."""
    from heartvoice.serving.workarounds import stuck_sends

    monkeypatch.setattr(stuck_sends, "STUCK_S", 0.1)
    never, done = threading.Event(), threading.Event()
    stuck, following = request(), request()
    stuck.get_response_sender().send = lambda *_, **__: never.wait(30)

    def work(job: Any) -> None:
        if job is first:
            job.send({})
        else:
            done.set()

    queue = jobs.JobQueue(SVC, work, 1, 2)
    first, second = (jobs.Job(SVC, each, queue.ended) for each in (stuck, following))
    queue.submit(first)
    wait_until(lambda: first.sending_s > 0, 60.0, "nothing is sent")
    queue.submit(second)
    assert not done.wait(0.3), "the only worker was free: the test shows nothing"
    first.cancel()
    assert done.wait(60)
    assert page["heartvoice_jobs_live"] <= 1
    never.set()


def test_metrics_are_updated_by_one_thread_at_a_time(jobs: ModuleType) -> None:
    """The guard of `heartvoice.serving.workarounds.metric_families`."""
    inside, most = [0], [0]

    def update(_: float) -> None:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(0.001)
        inside[0] -= 1

    metrics = jobs.Metrics("svc")
    for metric in metrics._families:
        metrics.change(metric, 0)
    for made in metrics._metrics.values():
        made.increment = made.set = update
    threads = [threading.Thread(target=lambda: [metrics.frames_made(1) for _ in range(20)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
