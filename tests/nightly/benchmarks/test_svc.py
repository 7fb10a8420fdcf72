"""The conversion's benchmark: a quick run of it."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import svc as benchmark


def test_quick_run_measures_every_part(tmp_path: Path) -> None:
    assert benchmark.main(["--quick", "--threads", "1", "--results", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("svc-tiny-*.json")
    result = json.loads(path.read_text())
    assert result["complete"]
    rows = {(row["case"], row["variant"]): row for row in result["rows"]}
    for name in ("content_encoder", "svc_regulator", "svc_flow", "svc_style", "vocoder"):
        assert rows[name, "onnxruntime"]["relative_error"] < 1e-4
    assert rows["svc_flow", "onnxruntime"]["budget"] == 1.05
    assert rows["stage: flow, one window", "onnxruntime"]["ratio"] > 0
    assert rows["conversion", "onnxruntime"]["relative_error"] < 1e-3
    assert ("binding", "bound") in rows
