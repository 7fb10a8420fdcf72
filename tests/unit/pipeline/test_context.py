"""The context of a job: posted messages, timings, and the report at the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator

import numpy as np
import pytest

from heartvoice.contracts.messages import AudioChunk, Event, Message, Report
from heartvoice.errors import EngineError, RequestCancelledError
from heartvoice.pipeline.context import JobContext
from tests.support.cancelling import cancelled_when

ABOUT = {"preset": "tiny", "random_weights": True}


def audio(start: int = 0) -> AudioChunk:
    return AudioChunk(np.zeros((2, 10), np.float32), start)


def stream(*messages: Message, delay_s: float = 0.0) -> Generator[Message, None, None]:
    for message in messages:
        time.sleep(delay_s)
        yield message


def test_messages_pass_and_the_report_comes_last() -> None:
    context = JobContext(ABOUT)
    context.report["seed"] = 7
    event = context.event("lm", 3, 10)
    found = list(context.deliver(stream(event, audio())))
    assert found[0] is event
    assert isinstance(found[1], AudioChunk)
    report = found[2]
    assert isinstance(report, Report)
    assert (report.seed, report.preset, report.random_weights, report.recorded) == (7, "tiny", True, False)
    assert report.timings.keys() == {"first_audio_s", "total_s"}
    assert report.attribution.startswith("AI-generated song, made with heartvoice")
    assert report.raw["signed"] is False


def test_the_first_audio_is_timed_and_not_what_comes_before_or_after() -> None:
    context = JobContext(ABOUT)
    context.report["seed"] = 0
    *_, report = context.deliver(stream(context.event("lm", 0, 1), audio(), audio(10), delay_s=0.05))
    assert isinstance(report, Report)
    assert 0.1 <= report.timings["first_audio_s"] <= report.timings["total_s"] - 0.04


def test_a_job_without_audio_has_no_first_one() -> None:
    context = JobContext(ABOUT)
    context.report["seed"] = 0
    (report,) = context.deliver(stream(), recorded=True)
    assert isinstance(report, Report)
    assert report.timings["first_audio_s"] is None
    assert report.recorded
    assert report.attribution.startswith("Recording as it was")


def test_a_report_that_lacks_a_field_is_our_error() -> None:
    with pytest.raises(EngineError, match="REPORT: seed"):
        list(JobContext(ABOUT).deliver(stream()))


def test_a_left_stream_closes_its_pipeline() -> None:
    closed = threading.Event()

    def pipeline() -> Generator[Message, None, None]:
        try:
            yield audio()
            yield audio(10)
        finally:
            closed.set()

    inner = pipeline()  # a reference: it is not closed by being forgotten
    messages = JobContext(ABOUT).deliver(inner)
    next(messages)
    messages.close()
    assert closed.is_set()


def test_timings_add_up_even_if_a_block_fails() -> None:
    context = JobContext(ABOUT)
    for _ in range(2):
        with context.timed("a"):
            time.sleep(0.02)

    def fail() -> None:
        with context.timed("b"):
            time.sleep(0.02)
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()
    assert context.timings["a"] >= 0.04
    assert context.timings["b"] >= 0.02


def test_only_the_making_of_items_is_timed() -> None:
    def slow() -> Iterator[int]:
        for value in range(3):
            time.sleep(0.01)
            yield value

    context = JobContext(ABOUT)
    began = time.monotonic()
    for _ in context.timed_items("made", slow()):
        time.sleep(0.05)
    assert 0.03 <= context.timings["made"] <= time.monotonic() - began - 0.15


def test_posted_messages_come_in_order_and_once() -> None:
    context = JobContext(ABOUT)
    events = [context.event("lm", done, 3) for done in range(3)]

    def post() -> None:
        for event in events:
            context.post(event)

    thread = threading.Thread(target=post)
    thread.start()
    thread.join()
    assert list(context.posted()) == events
    assert list(context.posted()) == []


def test_a_stage_that_exceeds_the_total_raises_it() -> None:
    event = JobContext(ABOUT).event("codec", 12, 10)
    assert isinstance(event, Event)
    assert (event.stage, event.done, event.total) == ("codec", 12, 12)


def test_a_prefetcher_of_a_job_ends_with_the_job() -> None:
    release, cancelled = threading.Event(), threading.Event()

    def wait() -> Iterator[int]:
        cancelled.set()
        release.wait(300)
        yield 1

    context = JobContext(ABOUT, cancelled_when(cancelled.is_set))
    with context.prefetch(wait, name="test") as prefetched, pytest.raises(RequestCancelledError):
        list(prefetched.items())
    release.set()
