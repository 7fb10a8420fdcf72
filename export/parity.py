"""Each graph against its PyTorch module, at several lengths, before it is let into a repository.

Networks too large to hold beside their graph are compared piece by piece: the same builder and the same checkpoint, but
one layer of each stack at full width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
from torch import nn

from heartvoice.checkpoints import TensorSource, build_module, load_network
from heartvoice.engines import Engine, OnnxEngine
from heartvoice.errors import ExportError
from heartvoice.export.graph import Graph, Precision
from heartvoice.export.weights import Network
from heartvoice.export.writer import GRAPH_FILE, write_graph
from heartvoice.presets import HeartCodecSizes, HeartMuLaSizes, Preset

TOLERANCE: dict[Precision, float] = {"fp32": 1e-4, "fp16": 2e-2}
"""Largest relative error ||a - b|| / ||b|| against the module in float32."""
WHOLE_BYTES = 2 * 2**30
"""Networks whose float32 weights exceed this are compared piece by piece."""


@dataclass
class Parity:
    """What a comparison found."""

    pieces: str
    """What was compared: "whole", or which pieces."""
    errors: dict[str, float] = field(default_factory=dict)
    """Largest relative error of each quantity."""
    misses: list[str] = field(default_factory=list)

    def add(self, quantity: str, got: npt.NDArray[np.floating], want: npt.NDArray[np.floating]) -> None:
        """Compare one array with what PyTorch returned."""
        if got.shape != want.shape:
            self.misses.append(f"{quantity}: shape {list(got.shape)}, PyTorch {list(want.shape)}")
            return
        wide = want.astype(np.float64)
        error = float(np.linalg.norm(got - wide) / max(np.linalg.norm(wide), 1e-30))
        self.errors[quantity] = max(self.errors.get(quantity, 0.0), error if math.isfinite(error) else math.inf)

    def check(self, model: str, precision: Precision) -> None:
        """Refuse the graph if it missed.

        Raises:
            ExportError: names the quantities, their errors and the tolerance.
        """
        limit = TOLERANCE[precision]
        misses = [*self.misses, *(f"{name}: error {error:.1e}" for name, error in self.errors.items() if error > limit)]
        if misses:
            raise ExportError(
                f"{model}: differs from PyTorch by more than {limit:g} ({precision}, {self.pieces}): {'; '.join(misses)}"
            )

    def summary(self, precision: Precision) -> dict[str, object]:
        """For the manifest: errors rounded up to one digit, so that it does not depend on the machine's last bits."""
        errors = {name: _rounded_up(error) for name, error in sorted(self.errors.items())}
        return {"compared": self.pieces, "tolerance": TOLERANCE[precision], "relative_error": errors}


Comparison = Callable[[Engine, nn.Module, Preset, Parity], None]
"""Runs an engine and a module on the same inputs."""


def _rounded_up(value: float) -> float:
    if value == 0.0:
        return 0.0
    unit = 10.0 ** math.floor(math.log10(value))
    return float(f"{math.ceil(value / unit) * unit:.0e}")


def compare(
    build: Callable[[Preset, TensorSource, Precision], Graph],
    run: Comparison,
    preset: Preset,
    source: TensorSource,
    precision: Precision,
    *,
    network: Network,
    written: Path | None,
    folder: Path,
) -> Parity:
    """Compare one graph with its module.

    Args:
        build: builds the graph.
        run: runs engine and network and fills a Parity.
        preset: sizes; those of one layer of each stack, where the whole is not compared.
        source: the checkpoint.
        precision: of the graph.
        network: which network the module is.
        written: the graph's file; None if `preset` is cut and the graph is only built to be compared.
        folder: where such a graph may lie meanwhile.
    """
    sizes = preset.lm if network == "lm" else preset.codec
    part = Part(source, sizes)
    parity = Parity("whole" if written else "pieces: one layer of each stack, at full width")
    with TemporaryDirectory(dir=folder) as temporary:
        if written is None:
            write_graph(build(preset, part, precision), Path(temporary))
            written = Path(temporary) / GRAPH_FILE
        engine = OnnxEngine(written)
    run(engine, load_network(sizes, part, decode_only=True), preset, parity)
    return parity


class Part(TensorSource):
    """A checkpoint seen through the names of a network that reads fewer tensors."""

    def __init__(self, source: TensorSource, sizes: HeartMuLaSizes | HeartCodecSizes) -> None:
        """Keep what a network of these sizes reads, its encoder excepted."""
        wanted = build_module(sizes, decode_only=True).state_dict()
        self._source = source
        self.names = frozenset(part for name in wanted for part in source.parts(name))

    def __str__(self) -> str:
        """The checkpoint's own name."""
        return str(self._source)

    def where(self, name: str) -> str:
        """The checkpoint's own answer."""
        return self._source.where(name)

    def _stored_shape(self, name: str) -> tuple[int, ...]:
        return self._source.shape(name)

    def _read(self, name: str) -> npt.NDArray[np.float32]:
        values: npt.NDArray[np.float32] = self._source.array(name)
        return values
