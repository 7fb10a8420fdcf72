"""A pump works ahead, but not too far, ends when its consumer does, and hides no failure."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator

import pytest

from heartvoice.errors import RequestCancelledError
from heartvoice.pipeline.prefetch import TIMEOUT, Prefetcher
from tests.support.cancelling import cancelled_when
from tests.support.waiting import wait_until


def count(made: list[int], upto: int) -> Iterator[int]:
    for value in range(upto):
        made.append(value)
        yield value


def test_items_come_in_order_and_end() -> None:
    with Prefetcher(lambda: range(100), name="test", max_ahead=3) as pump:
        assert list(pump.items()) == list(range(100))


def test_works_ahead_without_being_asked_but_only_so_far() -> None:
    made: list[int] = []
    with Prefetcher(lambda: count(made, 50), name="test", max_ahead=2) as pump:
        wait_until(lambda: len(made) == 3, 60.0, "two in the queue, one in the hand")
        time.sleep(0.15)
        assert len(made) == 3
        assert list(pump.items()) == list(range(50))


def test_a_failure_is_raised_after_what_was_made_before_it() -> None:
    def fail() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    with Prefetcher(fail, name="test") as pump:
        items = pump.items()
        assert next(items) == 1
        with pytest.raises(ValueError, match="broken"):
            next(items)


def test_the_thread_ends_with_the_block_even_if_its_queue_is_full() -> None:
    made: list[int] = []
    with Prefetcher(lambda: count(made, 10**9), name="ends-with-block", max_ahead=1):
        wait_until(lambda: len(made) == 2, 60.0, "queue full")
    wait_until(lambda: "ends-with-block" not in {t.name for t in threading.enumerate()}, 60.0, "thread lives on")
    assert len(made) <= 3


def test_check_is_called_while_nothing_comes() -> None:
    release, calls = threading.Event(), itertools.count()

    def wait() -> Iterator[int]:
        release.wait(300)
        yield 1

    check = cancelled_when(lambda: next(calls) >= 2)
    with Prefetcher(wait, name="test", check=check) as pump:
        with pytest.raises(RequestCancelledError):
            list(pump.items())
        assert pump.next(timeout_s=0.0) is TIMEOUT
        release.set()
