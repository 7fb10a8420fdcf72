"""Quick runs of the benchmark that `tests/unit/benchmarks/test_f0.py` tests in parts."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import f0
from tests.support.f0_engines import swift_file


def test_quick_run_measures_every_part(tmp_path: Path) -> None:
    swift_file()
    assert f0.main(["--quick", "--threads", "1", "--results", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("f0-quick-quick-*.json")
    result = json.loads(path.read_text())
    assert result["complete"]
    graphs = [row for row in result["rows"] if row["variant"] == "graph"]
    assert len(graphs) == 2
    assert all(row["relative_error"] < 1e-4 and row["ratio"] > 0 for row in graphs)
    contexts = {row["variant"] for row in result["rows"] if "pieces" in row["case"]}
    assert contexts == {f"context {context}" for context in f0.CONTEXTS}
