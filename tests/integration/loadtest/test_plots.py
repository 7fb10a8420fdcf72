"""The plots of a load test."""

from __future__ import annotations

from pathlib import Path

from heartvoice.loadtest.plots import draw
from tests.support.load_results import result


def test_plots_are_drawn_of_what_was_measured(tmp_path: Path) -> None:
    drawn = draw(result(), tmp_path)
    assert [path.name for path in drawn] == [
        "stages.png", "streams.png", "saturation.png", "length.png", "memory.png",
    ]  # fmt: skip
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in drawn)
    assert draw(result() | {"rows": []}, tmp_path) == []
