"""The conversion's benchmark: a quick run of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from heartvoice.benchmarks import svc as benchmark


@pytest.mark.slow
def test_quick_run_measures_every_part(tmp_path: Path) -> None:
    assert benchmark.main(["--quick", "--threads", "1", "--results", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("svc-quick-*.json")
    result = json.loads(path.read_text())
    assert result["complete"]
    rows = {(row["case"], row["variant"]): row for row in result["rows"]}
    assert rows["exact", "onnxruntime"]["relative_error"] < 1e-4
    assert rows["live", "live"]["apart_db"] < rows["live", "exact"]["apart_db"]  # than another seed
    assert rows["voice", "miss"]["voice_mb"] > 0
    assert ("binding", "bound") in rows
