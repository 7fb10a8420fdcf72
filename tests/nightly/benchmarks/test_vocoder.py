"""Quick runs of the benchmark that `tests/unit/benchmarks/test_vocoder.py` tests in parts."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import vocoder as benchmark
from benchmarks.vocoder_forms import FORMS


def test_quick_run_measures_every_part(tmp_path: Path) -> None:
    assert benchmark.main(["--quick", "--threads", "1", "--results", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("vocoder-quick-*.json")
    result = json.loads(path.read_text())
    assert result["complete"]
    rows = {(row["case"], row["variant"]): row for row in result["rows"]}
    assert rows["network", "onnxruntime"]["relative_error"] < 1e-4
    assert rows["chunks", "of 64 frames"]["snr_db"] > 100
    assert {variant for case, variant in rows if case.startswith("activation")} == set(FORMS)
