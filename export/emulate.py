"""Emulates half precision on a CPU: runs a typed graph (`mixed_precision.py`) in float32 with rounding.

Every tensor that the typed graph holds in half precision is rounded to it (to nearest, ties to even). Products are
summed in float32, as in tensor cores. The error is therefore that of weights and tensors in half. A runtime that fuses
layers keeps more digits between them, and one that sums in fp16 keeps fewer. The emulation covers neither case.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from onnx import helper

from heartvoice.arrays import Array
from heartvoice.export.graph_builder import FP32_REGIONS, Fp32Region, Graph, Weight
from heartvoice.export.mixed_precision import MOVERS, NUMPY_HALF, ONNX_HALF, SINGLE, HalfPrecision, Typed, type_graph
from heartvoice.export.writer import GRAPH_FILE, write_graph
from heartvoice.runtime.engines import Engine, OnnxEngine


def emulated(typed: Typed) -> Graph:
    """Return a float32 graph that rounds where a typed graph does."""
    graph = typed.graph
    precision: HalfPrecision = "bf16" if graph.precision == "bf16" else "fp16"
    half = int(ONNX_HALF[precision])
    copy = Graph(graph.name, "fp32", inputs=graph.inputs, outputs=graph.outputs)
    copy.weights = [
        _rounded(weight, precision) if typed.types[weight.name] == half else weight for weight in graph.weights
    ]

    def round_to(name: str, out: str) -> None:
        copy.nodes.append(helper.make_node("Cast", [name], [f"{out}.rounded"], to=half))
        copy.nodes.append(helper.make_node("Cast", [f"{out}.rounded"], [out], to=SINGLE))

    for node in graph.nodes:
        rounded = [name for name in node.output if typed.types.get(name) == half]
        if node.op_type == "Cast" and rounded:
            round_to(node.input[0], node.output[0])
        elif node.op_type == "Cast" and typed.types.get(node.input[0]) == half:
            copy.nodes.append(helper.make_node("Identity", node.input, node.output))
        elif not rounded or node.op_type in MOVERS:
            copy.nodes.append(node)
        else:
            exact = onnx.NodeProto()
            exact.CopyFrom(node)
            del exact.output[:]
            exact.output.extend(f"{name}.exact" if name in rounded else name for name in node.output)
            copy.nodes.append(exact)
            for name in rounded:
                round_to(f"{name}.exact", name)
    return copy


def _rounded(weight: Weight, precision: HalfPrecision) -> Weight:
    def make() -> Array:
        with np.errstate(over="ignore"):  # the comparison finds infinite values
            return weight.make().astype(NUMPY_HALF[precision]).astype(np.float32)

    return Weight(weight.name, weight.shape, np.float32, partial(make), checked=False)


def emulate(
    path: Path,
    precision: HalfPrecision,
    fp32_regions: Collection[Fp32Region] = FP32_REGIONS,
    *,
    threads: int | None = None,
) -> Engine:
    """Open a float32 graph in emulated half precision, except for the float32 regions."""
    with TemporaryDirectory(prefix="heartvoice-half-") as folder:
        write_graph(emulated(type_graph(path, precision, fp32_regions)), Path(folder))
        return OnnxEngine(Path(folder) / GRAPH_FILE, threads=threads)


# ------------------------------------------------------------------------------------------------------------- errors


@dataclass(frozen=True)
class HalfError:
    """Error of results relative to those in float32."""

    relative: float
    """RMS of the difference over RMS of the result; infinite if any value is not finite."""

    @property
    def snr_db(self) -> float:
        """Signal-to-noise ratio in dB; infinite if nothing differs."""
        return float("inf") if self.relative == 0 else -20 * float(np.log10(self.relative))

    def __str__(self) -> str:
        """Format as `1.2e-03 (58 dB)`, or as an overflow."""
        if self.relative == 0:
            return "none"
        return f"{self.relative:.1e} ({self.snr_db:.0f} dB)" if np.isfinite(self.relative) else "overflow"


def compare(
    got: Mapping[str, Array], want: Mapping[str, Array], outputs: Sequence[str] | None = None
) -> dict[str, HalfError]:
    """Return the error of every float output."""
    found: dict[str, HalfError] = {}
    for name in outputs or want:
        if not np.issubdtype(want[name].dtype, np.floating):
            continue
        exact = want[name].astype(np.float64)
        size = float(np.linalg.norm(exact))
        difference = float(np.linalg.norm(got[name].astype(np.float64) - exact))
        found[name] = HalfError(difference / max(size, 1e-30) if np.isfinite(difference) else float("inf"))
    return found
