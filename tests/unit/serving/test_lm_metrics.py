"""What the scheduler's metrics say, and when."""

from __future__ import annotations

from collections import Counter

import pytest

from heartvoice.serving import lm_metrics
from heartvoice.serving.lm_metrics import BOUNDS_S, LmMetrics


class Page:
    """The /metrics page, in place of the server's."""

    def __init__(self) -> None:
        self.counters: set[str] = set()
        self.values: Counter[tuple[str, str]] = Counter()
        self.n_messages = 0

    def declare(self, name: str, description: str, *, counter: bool) -> None:
        assert description
        if counter:
            self.counters.add(name)

    def change(self, name: str, value: float, *, le: str = "") -> None:
        self.n_messages += 1
        if name in self.counters:
            assert value > 0, "a message that changes nothing"
            self.values[name, le] += value  # type: ignore[assignment]
        else:
            self.values[name, le] = value  # type: ignore[assignment]

    def frames_made(self, count: int) -> None:
        self.change("frames", count)


@pytest.fixture
def page() -> Page:
    return Page()


@pytest.fixture
def metrics(page: Page) -> LmMetrics:
    page.counters.add("frames")
    return LmMetrics(page)  # type: ignore[arg-type]


def test_durations_become_a_histogram(metrics: LmMetrics, page: Page) -> None:
    for seconds in (0.003, 0.01, 0.04, 200.0):
        metrics.timed("step", seconds)
    metrics.flush(immediate=True)
    metrics.timed("step", 0.04)
    metrics.flush(immediate=True)
    name = "heartvoice_lm_step_seconds"
    buckets = [page.values[f"{name}_bucket", str(bound)] for bound in (*BOUNDS_S, "+Inf")]
    assert buckets == [0, 1, 2, 2] + [4] * (len(BOUNDS_S) - 4) + [5]
    assert page.values[f"{name}_count", ""] == 5
    assert page.values[f"{name}_sum", ""] == pytest.approx(200.093)
    assert not any(key.startswith("heartvoice_lm_prefill") for key, _ in page.values)


def test_messages_are_few_until_a_song_ends(metrics: LmMetrics, page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lm_metrics, "SETTLE_S", 60.0)
    before = page.n_messages
    for _ in range(100):
        metrics.frames_made(2)
        metrics.timed("step", 0.01)
        metrics.occupied(slots=2, rows=3, waiting=1)
        metrics.flush(immediate=False)
    assert page.n_messages == before
    metrics.occupied(slots=1, rows=2, waiting=0)
    metrics.flush(immediate=True)
    assert page.values["frames", ""] == 200
    assert page.values["heartvoice_lm_slots_busy", ""] == 1
    assert page.values["heartvoice_lm_rows_busy", ""] == 2
    assert page.values["heartvoice_lm_songs_waiting", ""] == 0
    after = page.n_messages
    metrics.flush(immediate=True)
    assert page.n_messages == after, "nothing has changed"
