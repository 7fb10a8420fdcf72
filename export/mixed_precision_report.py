"""Measures the error of half precision for each graph of a repository, by emulation."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from heartvoice.export.emulate import HalfError, compare, emulate
from heartvoice.export.graph_builder import FP32_REGIONS, Fp32Region
from heartvoice.export.layout import GraphModel, to_json
from heartvoice.export.mixed_precision import HalfPrecision
from heartvoice.export.mixed_precision_cases import FRAMES, HALF_OUTPUTS, half_case, recorded_inputs
from heartvoice.export.repository import read_json, total_bytes
from heartvoice.file_errors import write_file
from heartvoice.runtime.engines import OnnxEngine
from heartvoice.runtime.repository import MANIFEST, Repository
from heartvoice.runtime.tensorrt_plans import REPORT

_MEMORY_PER_BYTE = 5
"""Bytes of memory per byte of weights in a comparison: two packed engines and one under construction."""


def measure(
    repository: Repository,
    model: GraphModel,
    precision: HalfPrecision,
    fp32_regions: Collection[Fp32Region] = FP32_REGIONS,
    *,
    inputs: Path | None = None,
    frames: int = FRAMES,
) -> dict[str, Any]:
    """Compare one graph in half precision with the same graph in float32.

    Args:
        repository: contains the graph in float32.
        model: the graph.
        precision: precision outside of the float32 regions.
        fp32_regions: the regions that stay float32.
        inputs: folder of recorded inputs; noise replaces missing ones.
        frames: length of the noise.

    Returns:
        `inputs`, and `errors` by output, rounded to two digits; or `skipped` with the reason.
    """
    size = total_bytes(read_json(repository.root / model.name / MANIFEST))
    needed, free = size * _MEMORY_PER_BYTE, available_memory()
    if needed > free:
        return {"skipped": f"needs {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free"}
    recorded = None if inputs is None else recorded_inputs(inputs, model.name)
    values = half_case(model, repository.preset, frames) if recorded is None else recorded
    path = repository.graph(model.name)
    want = OnnxEngine(path).run(values)
    found = compare(emulate(path, precision, fp32_regions).run(values), want, HALF_OUTPUTS.get(model.name))
    return {
        "inputs": "noise" if recorded is None else "recorded",
        "errors": {name: _summary(error) for name, error in sorted(found.items())},
    }


def _summary(error: HalfError) -> dict[str, Any]:
    if not math.isfinite(error.relative):
        return {"overflow": True}
    if error.relative == 0:
        return {"relative": 0.0}
    return {"relative": float(f"{error.relative:.2g}"), "snr_db": round(error.snr_db, 1)}


def available_memory() -> int:
    """Return the kernel's estimate of the bytes available without swapping."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return int(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def store_report(
    repository: Repository, precision: HalfPrecision, fp32_regions: Collection[Fp32Region], graphs: Mapping[str, Any]
) -> Path:
    """Add graphs to a repository's report; entries of other precisions stay."""
    path = repository.root / REPORT
    report = read_json(path)
    before = report.get(precision, {})
    same = before.get("fp32_regions") == sorted(fp32_regions) and before.get("weights") == repository.index["weights"]
    report[precision] = {
        "fp32_regions": sorted(fp32_regions),
        "weights": repository.index["weights"],
        "preset": repository.index["preset"],
        "method": "rounded at weights and at every tensor outside of these regions, summed in float32",
        "graphs": {**(before.get("graphs", {}) if same else {}), **graphs},
    }
    write_file(path, to_json(report))
    return path


def worst_text(entry: Mapping[str, Any]) -> str:
    """Format the error of a graph's worst output, `1.2e-03 (58 dB)`, or the reason for a missing number."""
    if "skipped" in entry:
        return f"not measured: {entry['skipped']}"
    errors = list(entry["errors"].values())
    if any("overflow" in error for error in errors):
        return "overflow"
    worst = max((error["relative"] for error in errors), default=0.0)
    return str(HalfError(worst))
