"""Waits until no job is live before the server is stopped.

Fault (Triton 2.51): after SIGTERM the server refuses the inner calls of songs, so songs in progress cannot finish.
Does: the supervisor raises a flag that refuses new jobs, waits here, and sends SIGTERM afterwards.
Test: `test_stop_may_let_songs_finish`
Delete when: Triton accepts inner calls of requests in progress after SIGTERM.
"""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable

POLL_S = 0.05


def count_live_jobs(metrics_url: str) -> int:
    """Return the number of jobs that run or wait by a server's metrics page; 0 if it does not answer."""
    try:
        with urllib.request.urlopen(metrics_url, timeout=5) as page:  # noqa: S310 (http, by `ServerOptions`)
            text = page.read().decode()
    except OSError:
        return 0
    lines = (line.rpartition(" ") for line in text.splitlines() if line.startswith("heartvoice_jobs_live{"))
    return round(sum(float(value) for _, _, value in lines))


def wait_until_idle(live_jobs: Callable[[], int], timeout_s: float, interrupted: Callable[[], bool]) -> None:
    """Wait until there is no live job, for at most `timeout_s` seconds or until `interrupted` is true."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and not interrupted() and live_jobs() > 0:
        time.sleep(POLL_S)
