"""The GPU benchmark: a dry run in a bare environment, and the real thing where there is a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu_device import errors
from heartvoice.loadtest.machine import ROOT

ABSENT = (
    "safetensors", "onnx", "onnxruntime", "openvino", "tritonclient", "grpc", "tokenizers", "soundfile", "typer",
    "rich", "psutil",
)  # fmt: skip


def gpu_sh(folder: Path, *arguments: str) -> dict[str, Any]:
    """Run the script where only torch and numpy can be imported; returns its result."""
    (folder / "bare").mkdir()
    (folder / "bare" / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({ABSENT}))\n")
    environment = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(folder / "bare"), "OUT": str(folder)}
    done = subprocess.run(
        [ROOT / "benchmarks" / "gpu.sh", *arguments], env=environment, cwd=folder, capture_output=True, text=True,
        timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("gpu-*.json")
    result: dict[str, Any] = json.loads(path.read_text())
    return result


def test_errors_are_relative() -> None:
    assert errors(torch.tensor([3.0, 4.04]), torch.tensor([3.0, 4.0]))["relative_error"] == pytest.approx(
        0.008, rel=1e-3
    )


@pytest.mark.gpu
def test_the_engine_on_a_gpu_draws_the_codes_of_eager(tmp_path: Path) -> None:
    result = gpu_sh(tmp_path, "--preset", "tiny", "--device", "cuda", "--no-compile")
    assert result["dry_run"] is False
    rows = {(row["case"], row["variant"]): row for row in result["rows"]}
    assert not [row for row in rows.values() if "failed" in row]
    assert rows["HeartMuLa bf16 against fp32, same weights", "engine, fp32"]["codes_as_module"] == 1
