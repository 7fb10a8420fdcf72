"""Quick runs of the benchmark that `tests/unit/benchmarks/test_gpu.py` tests in parts."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks.gpu_device import random_network
from heartvoice.config.presets import PRESETS
from heartvoice.models.heartmula import HeartMuLa
from tests.unit.benchmarks.test_gpu import gpu_sh


def test_dry_run_needs_torch_and_numpy_alone(tmp_path: Path) -> None:
    result = gpu_sh(tmp_path, "--preset", "tiny", "--device", "cpu")
    assert (result["dry_run"], result["preset"], result["complete"]) == (True, "tiny", True)
    rows = {(row["case"], row["variant"]): row for row in result["rows"]}
    failed = {variant for (_, variant), row in rows.items() if "failed" in row}
    assert all("graph" in variant for variant in failed)
    assert {row["failed"] for row in rows.values() if "failed" in row} <= {"RuntimeError: CUDA graphs need a GPU"}
    for songs in (1, 2, 4, 8, 16):
        for seconds, frames in ((1, 12), (2, 25)):
            row = rows["HeartMuLa songs, bf16", f"{songs} songs, {seconds} s"]
            assert row["n"] == frames - 1 + 2  # all but the first, and two steps until the last one's codes come
            assert min(row[name] for name in ("share_of_roof", "songs_per_s", "times_one", "of_eager")) > 0
            assert row["peak_gb"] >= row["loaded_gb"] > 0
    assert rows["HeartMuLa bf16 against fp32, same weights", "engine, fp32"]["codes_as_module"] == 1
    assert rows["HeartCodec flow, one window", "bf16 matrices"]["snr_db"] > 40
    assert rows["HeartCodec scalar decoder, one window", "fp32, chunks of 248"]["relative_error"] < 1e-5
    assert rows["HeartMuLa bf16 against fp32, same weights", "codebook 0"]["relative_error"] < 0.05


def test_random_weights_in_bf16_leave_rope_and_norm_statistics_in_float32() -> None:
    sizes = PRESETS["tiny"].lm
    network = random_network(sizes, torch.device("cpu"), torch.bfloat16)
    assert isinstance(network, HeartMuLa)
    assert {tensor.dtype for tensor in network.state_dict().values()} == {torch.bfloat16}
    assert {table.dtype for table in network.backbone.rotary(torch.tensor([8191]))} == {torch.float32}
    x = torch.randn(3, sizes.backbone.embed_dim, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    norm, wide = network.backbone.norm, x.float()
    want = (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + norm.eps)).to(torch.bfloat16) * norm.scale
    assert torch.equal(norm(x), want)
    assert not network.codebook0_head.weight[-sizes.num_special :].any()
    assert abs(float(network.text_embeddings.weight.float().std()) - 1) < 0.02
