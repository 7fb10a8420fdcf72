"""Deadlines and retries by a clock that stands still."""

from __future__ import annotations

import math

import pytest

from heartvoice.client.collect import SongCollector, StemsCollector
from heartvoice.client.connection import Connection
from heartvoice.client.recordings import Recording
from heartvoice.client.retries import RECOVERY_S, RetryState
from heartvoice.contracts.constants import MAX_CHANNELS, MAX_INPUT_RATE_HZ, MAX_RECORDING_S
from heartvoice.errors import (
    DeadlineError,
    EngineError,
    HeartvoiceError,
    InvalidRequestError,
    ModelMissingError,
    ModelUnavailableError,
)
from tests.support.clock import Clock


def attempts(clock: Clock, timeout_s: float = 60.0, retries: int = 3) -> RetryState:
    """Attempts without jitter."""
    return RetryState("song", "host:1", timeout_s, retries, clock=clock, jitter=lambda low, high: high)


def test_delays_double_and_retries_run_out() -> None:
    tries = attempts(Clock())
    busy = ModelUnavailableError("busy")
    assert [tries.delay_after(busy, received=False) for _ in range(3)] == [0.2, 0.4, 0.8]
    with pytest.raises(ModelUnavailableError) as caught:
        tries.delay_after(busy, received=False)
    assert caught.value is busy


def test_delays_are_bounded_and_jittered() -> None:
    tries = RetryState("song", "host:1", math.inf, 100)
    delays = [tries.delay_after(ModelUnavailableError("busy"), received=False) for _ in range(30)]
    assert all(0.1 * 2**n <= delay <= 0.2 * 2**n for n, delay in enumerate(delays[:4]))
    assert all(2.5 <= delay <= 5 for delay in delays[6:])
    assert len(set(delays[6:])) > 1


@pytest.mark.parametrize("error", [EngineError("x"), ModelMissingError("x")])
def test_only_passing_unavailability_is_worth_a_retry(error: HeartvoiceError) -> None:
    with pytest.raises(type(error)):
        attempts(Clock()).delay_after(error, received=False)


DIED = ModelUnavailableError("heartmula: its process died in the middle of the job")


def test_a_lost_call_may_be_lost_as_often_as_there_are_retries() -> None:
    tries = attempts(Clock(), retries=2)
    assert [tries.delay_after(DIED, received=True) for _ in range(2)] == [0.2, 0.2]
    with pytest.raises(ModelUnavailableError):
        tries.delay_after(DIED, received=True)


@pytest.mark.parametrize("received", [True, False])
def test_what_died_gets_a_minute_to_be_served_again(received: bool) -> None:
    clock = Clock()
    tries = attempts(clock, timeout_s=600.0)
    tries.delay_after(DIED, received=received)
    began = clock.now
    refused = ModelUnavailableError("host:1: failed to connect to all addresses")
    while clock.now < began + RECOVERY_S:
        clock.now += tries.delay_after(refused, received=False)
    assert tries.count < 20
    for _ in range(3):
        tries.delay_after(refused, received=False)
    with pytest.raises(ModelUnavailableError):
        tries.delay_after(refused, received=False)


def test_without_retries_nothing_is_repeated() -> None:
    for received in (True, False):
        with pytest.raises(ModelUnavailableError):
            attempts(Clock(), retries=0).delay_after(DIED, received=received)


def test_a_lost_call_is_not_repeated_after_another_error() -> None:
    tries = attempts(Clock())
    tries.delay_after(DIED, received=True)
    with pytest.raises(InvalidRequestError):
        tries.delay_after(InvalidRequestError("lyrics: no"), received=False)


def test_no_retry_that_would_begin_after_the_deadline() -> None:
    clock = Clock()
    tries = attempts(clock, timeout_s=10)
    clock.now += 9.9
    with pytest.raises(ModelUnavailableError):
        tries.delay_after(ModelUnavailableError("x"), received=False)


def test_each_try_gets_what_is_left_of_the_deadline() -> None:
    clock = Clock()
    tries = attempts(clock, timeout_s=10)
    clock.now += 5
    tries.begin()
    assert tries.remaining_s() == 10
    clock.now += 4
    assert tries.remaining_s() == 6
    clock.now += 6
    with pytest.raises(DeadlineError, match="song: no complete answer within 10 s"):
        tries.remaining_s()
    assert attempts(clock, timeout_s=math.inf).remaining_s() is None


def test_a_lost_connection_names_the_server() -> None:
    error = attempts(Clock()).failure("UNAVAILABLE", "failed to connect to all addresses")
    assert str(error) == "host:1: no connection: failed to connect to all addresses"


@pytest.mark.parametrize(
    "details", ["Socket closed", "Stream removed (Socket closed)", "recvmsg:Connection reset by peer"]
)
def test_a_server_that_is_gone_in_the_middle_of_a_call_is_said_to_be(details: str) -> None:
    error = attempts(Clock()).failure("UNAVAILABLE", details)
    assert isinstance(error, ModelUnavailableError)
    assert str(error) == f"song: the connection to host:1 was lost ({details}); the server may have died"


@pytest.mark.parametrize(
    ("url", "bypass"), [("127.0.0.1:8001", True), ("localhost:8001", True), ("10.0.0.1:8001", False)]
)
def test_loopback_calls_bypass_http_proxies(url: str, bypass: bool) -> None:
    assert (("grpc.enable_http_proxy", 0) in Connection(url).options) is bypass


def test_keepalive_is_off_unless_asked_for() -> None:
    assert not any("keepalive" in name for name, _ in Connection().options)
    options = dict(Connection(keepalive_s=30, keepalive_timeout_s=5).options)
    assert options["grpc.keepalive_time_ms"] == 30_000
    assert options["grpc.keepalive_timeout_ms"] == 5000


def test_an_unfinished_song_is_our_mistake() -> None:
    with pytest.raises(AssertionError):
        SongCollector().song()
    with pytest.raises(AssertionError):
        StemsCollector().stems(Recording())


def test_the_longest_recording_with_the_longest_voice_can_be_sent() -> None:
    samples = 2 * MAX_RECORDING_S * MAX_INPUT_RATE_HZ * MAX_CHANNELS
    assert dict(Connection().options)["grpc.max_send_message_length"] > samples * 4
