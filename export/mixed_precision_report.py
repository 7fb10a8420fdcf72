"""What half precision costs each graph of a repository: measured by emulation, written beside it, shown as a table."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from heartvoice.export.emulate import HalfError, compare, emulate
from heartvoice.export.graph_builder import ISLANDS, Fp32Region
from heartvoice.export.layout import GraphModel, to_json
from heartvoice.export.mixed_precision import HalfPrecision
from heartvoice.export.mixed_precision_cases import FRAMES, HALF_OUTPUTS, half_case, recorded_inputs
from heartvoice.export.repository import read_json, total_bytes
from heartvoice.runtime.engines import OnnxEngine
from heartvoice.runtime.repository import MANIFEST, Repository
from heartvoice.runtime.tensorrt_plans import REPORT

_MEMORY_PER_BYTE = 5
"""Bytes of memory that a comparison takes for each byte of weights: two engines, packed, and one in the making."""


def measure(
    repository: Repository,
    model: GraphModel,
    precision: HalfPrecision,
    islands: Collection[Fp32Region] = ISLANDS,
    *,
    inputs: Path | None = None,
    frames: int = FRAMES,
) -> dict[str, Any]:
    """Compare one graph in half precision with itself in float32.

    Args:
        repository: holds the graph, in float32.
        model: the graph.
        precision: outside of the islands.
        islands: what stays float32.
        inputs: folder of recorded inputs; noise where it has none.
        frames: length of noise.

    Returns:
        `inputs`, and `errors` by output, rounded to two digits; or `skipped` and why.
    """
    size = total_bytes(read_json(repository.root / model.name / MANIFEST))
    needed, free = size * _MEMORY_PER_BYTE, available_memory()
    if needed > free:
        return {"skipped": f"needs {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free"}
    recorded = None if inputs is None else recorded_inputs(inputs, model.name)
    values = half_case(model, repository.preset, frames) if recorded is None else recorded
    path = repository.graph(model.name)
    want = OnnxEngine(path).run(values)
    found = compare(emulate(path, precision, islands).run(values), want, HALF_OUTPUTS.get(model.name))
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
    """Bytes that can be had without swapping, by the kernel's own estimate."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return int(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def store_report(
    repository: Repository, precision: HalfPrecision, islands: Collection[Fp32Region], graphs: Mapping[str, Any]
) -> Path:
    """Add graphs to a repository's report; those of other precisions stay."""
    path = repository.root / REPORT
    report = read_json(path)
    before = report.get(precision, {})
    same = before.get("islands") == sorted(islands) and before.get("weights") == repository.index["weights"]
    report[precision] = {
        "islands": sorted(islands),
        "weights": repository.index["weights"],
        "preset": repository.index["preset"],
        "method": "rounded at weights and at every tensor outside of the islands, summed in float32",
        "graphs": {**(before.get("graphs", {}) if same else {}), **graphs},
    }
    path.write_text(to_json(report), encoding="utf-8")
    return path


def worst_text(entry: Mapping[str, Any]) -> str:
    """`1.2e-03 (58 dB)` of a graph's worst output; or why there is no number."""
    if "skipped" in entry:
        return f"not measured: {entry['skipped']}"
    errors = list(entry["errors"].values())
    if any("overflow" in error for error in errors):
        return "overflow"
    worst = max((error["relative"] for error in errors), default=0.0)
    return str(HalfError(worst))
