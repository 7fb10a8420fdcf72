"""The benchmark of many songs, from end to end at the tiny preset."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import batch


@pytest.mark.parametrize("further", [[], ["--quantize", "int8"]])
def test_quick_run_compares_many_songs_with_one(tmp_path: Path, further: list[str]) -> None:
    assert batch.main(["--preset", "tiny", "--quick", "--threads", "1", "--results", str(tmp_path), *further]) == 0
    (path,) = tmp_path.glob("batch-quick-tiny-*.json")
    result = json.loads(path.read_text())
    assert (result["preset"], result["complete"]) == ("tiny", True)
    frames = [row for row in result["rows"] if row["case"] == "LM frame of all songs"]
    assert [row["songs"] for row in frames] == [1, 2, 4, 8]
    assert all(row["n"] == 3 and row["speedup"] > 0 and row["floor_ms"] > 0 for row in frames)
    one, many = (row for row in result["rows"] if row["case"] == "whole songs")
    assert (one["speedup"], one["songs"], many["songs"]) == (1, 1, 8)
    assert many["songs_that_differ"] == 0
    assert many["budget"] == (1.8 if further else 3.0)
    assert many["songs_per_s"] == pytest.approx(8 / (many["p50_ms"] / 1e3), rel=1e-4)
