"""Quick runs of the benchmark that `tests/integration/benchmarks/test_mixed_precision.py` tests in parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks import mixed_precision


def test_recorded_inputs_of_a_window_can_be_judged(exported: Path, tmp_path: Path) -> None:
    inputs, results = tmp_path / "inputs", tmp_path / "results"
    assert mixed_precision.main(["--repository", str(exported), "--record", str(inputs)]) == 0
    assert {path.stem for path in inputs.iterdir()} == {"heartcodec_condition", "heartcodec_flow", "heartcodec_decoder"}
    with np.load(inputs / "heartcodec_flow.npz") as arrays:
        assert arrays["x"].shape == (2, 186, 16)
        assert 0.5 < arrays["t"][0, 0] < 1  # the eighth of ten steps
    arguments = ["--repository", str(exported), "--inputs", str(inputs), "--only", "heartcodec_flow"]
    assert mixed_precision.main([*arguments, "--results", str(results)]) == 0
