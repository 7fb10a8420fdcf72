"""Quick runs of the benchmark that `tests/unit/benchmarks/test_engine.py` tests in parts."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import engine


def test_quick_run_compares_every_network_with_eager(tmp_path: Path) -> None:
    arguments = ["--preset", "tiny", "--quick", "--threads", "1", "--repository", str(tmp_path / "repository")]
    assert engine.main([*arguments, "--results", str(tmp_path / "results")]) == 0

    (path,) = (tmp_path / "results").glob("engine-quick-tiny-*.json")
    result = json.loads(path.read_text())
    assert (result["preset"], result["threads"], result["complete"]) == ("tiny", 1, True)
    rows = {(row["case"], row["variant"]): row for row in result["rows"]}
    step = rows["LM step", "standard, fp32"]
    assert step["frames_that_differ"] == 0
    assert step["frames"] > step["n"]
    for case, variant in (
        ("LM step", "standard, fp32"),
        ("flow step", "onnxruntime fp32"),
        ("scalar decoder", "onnxruntime, one shot"),
        ("scalar decoder", "onnxruntime, chunks of 62"),
        ("scalar decoder", "onnxruntime, the stage"),
    ):
        row = rows[case, variant]
        assert row["relative_error"] < 1e-4
        assert row["ratio"] > 0
        assert row["n"] >= 3
