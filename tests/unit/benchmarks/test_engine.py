"""The CPU benchmark from end to end at the tiny preset, and its chunking."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import engine
from benchmarks.engine_codec import DecoderVariant, Floats, in_chunks


@pytest.mark.parametrize("chunk", [0, 1, 50, 62, 100])
def test_chunks_are_put_together_in_order(chunk: int) -> None:
    latents = np.arange(2 * 1 * 131, dtype=np.float32).reshape(2, 1, 131)
    calls: list[int] = []

    def decode(part: Floats) -> Floats:
        calls.append(part.shape[2])
        return part.repeat(4, axis=2)

    np.testing.assert_array_equal(in_chunks(decode, latents, chunk, 4), latents[:, 0].repeat(4, axis=1))
    assert max(calls) <= (chunk or 131) + 46


def test_variants_have_readable_names() -> None:
    assert [str(DecoderVariant("eager", chunk)) for chunk in (0, 62)] == ["eager, one shot", "eager, chunks of 62"]


@pytest.mark.slow
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
