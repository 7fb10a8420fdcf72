"""The benchmark of half precision from end to end, and its full-width sizes."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import mixed_precision
from heartvoice.config.presets import PRESETS
from heartvoice.export.graph_builder import FP32_REGIONS


def test_variants_leave_out_one_region_each() -> None:
    found = mixed_precision.variants(["norm", "time"], few=False)
    assert list(found) == ["all regions", "no regions", "all but norm", "all but time"]
    assert set(FP32_REGIONS) - set(found["all but time"]) == {"time"}
    assert list(mixed_precision.variants(["norm"], few=True)) == ["all regions", "no regions"]


def test_official_sizes_are_cut_in_depth_alone() -> None:
    whole, cut = PRESETS["oss-3b"], mixed_precision.few_layers(PRESETS["oss-3b"])
    assert (cut.codec.num_layers, cut.codec.num_layers_2, cut.svc.whisper.encoder_layers) == (1, 1, 2)
    assert cut.codec.num_attention_heads == whole.codec.num_attention_heads
    assert cut.svc.dit.hidden_dim == whole.svc.dit.hidden_dim
    assert cut.svc.vocoder == whole.svc.vocoder


def test_run_of_one_graph_writes_every_variant(exported: Path, tmp_path: Path) -> None:
    arguments = ["--repository", str(exported), "--only", "svc_style", "--results", str(tmp_path)]
    assert mixed_precision.main(arguments) == 0
    (path,) = tmp_path.glob("half-tiny-*.json")
    result = json.loads(path.read_text())
    rows = {row["variant"]: row["snr_db"] for row in result["rows"]}
    assert set(rows) == {f"{p}, {v}" for p in ("bf16", "fp16") for v in ("all regions", "no regions", "all but norm")}
    assert rows["fp16, all regions"] > rows["bf16, all regions"] + 10
    assert result["weights"] == "random seed=0"
