"""Rates and counts, by a clock of the test's own."""

from __future__ import annotations

import pytest

from heartvoice.contracts.constants import MAX_FILE_BYTES
from heartvoice.errors import InvalidRequestError, QuotaError
from heartvoice.gateway.rate_limits import Bucket, Limits, Quota
from tests.support.clock import Clock


def test_a_bucket_fills_at_its_rate_up_to_its_capacity() -> None:
    clock = Clock()
    bucket = Bucket(2.0, 4.0, clock)
    for _ in range(4):
        assert bucket.wait_s(1) == 0
        bucket.take(1)
    assert bucket.wait_s(1) == pytest.approx(0.5)
    clock.now += 0.5
    assert bucket.wait_s(1) == 0
    clock.now += 1000
    assert bucket.wait_s(4) == 0
    bucket.take(4)
    assert bucket.wait_s(4) == pytest.approx(2.0), "no more than its capacity is kept"


def test_a_refused_request_costs_nothing() -> None:
    clock = Clock()
    quota = Quota("alice", Limits(requests_per_s=1, bytes_per_minute=600, max_message_bytes=600), clock)
    quota.request(500)
    with pytest.raises(QuotaError, match=r"alice: expected at most 600 bytes a minute, .* 200; try again in 10\.0 s"):
        quota.request(200)
    quota.request(100)


def test_calls_at_once() -> None:
    quota = Quota("alice", Limits(concurrent=1))
    quota.begin()
    with pytest.raises(QuotaError, match="alice: expected at most 1 calls at once"):
        quota.begin()
    quota.end()
    quota.begin()


@pytest.mark.parametrize("limit", ["requests_per_s", "concurrent", "max_message_bytes", "receive_s", "call_s"])
def test_limits_are_above_zero(limit: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"{limit}: expected more than 0, got 0"):
        Limits(**{limit: 0})


def test_the_largest_request_must_fit_into_a_minute() -> None:
    with pytest.raises(InvalidRequestError, match="bytes_per_minute: expected at least max_message_bytes"):
        Limits(bytes_per_minute=1000)


def test_the_longest_recording_as_samples_fits_in_a_request_with_a_reference() -> None:
    samples = 600 * 48_000 * 2 * 4
    assert Limits().max_message_bytes > samples + MAX_FILE_BYTES
