"""Compares each graph with its PyTorch module at several lengths before it enters a repository.

If network and graph do not fit into memory together, they are compared piece by piece: the same builder and checkpoint,
but one layer of each stack at full width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from heartvoice.config.presets import Preset, SwiftF0Config
from heartvoice.contracts.network_names import Network
from heartvoice.errors import ExportError
from heartvoice.export.graph_builder import Graph
from heartvoice.export.layout import Precision, network_sizes
from heartvoice.export.writer import GRAPH_FILE, write_graph
from heartvoice.models.load import TensorSource, build_module, load_module
from heartvoice.runtime.engines import Engine, OnnxEngine

TOLERANCE: dict[Precision, float] = {"fp32": 1e-4, "fp16": 2e-2}
"""Largest relative error ||a - b|| / ||b|| against the module in float32."""
WHOLE_BYTES = 2 * 2**30
"""Networks with more float32 weights, in bytes, are compared piece by piece."""


@dataclass
class Parity:
    """The result of a comparison."""

    pieces: str
    """The compared part: "whole", or the pieces."""
    errors: dict[str, float] = field(default_factory=dict)
    """Largest relative error of each quantity."""
    misses: list[str] = field(default_factory=list)
    tolerance: Mapping[Precision, float] = field(default_factory=lambda: TOLERANCE)

    def add(self, quantity: str, got: npt.NDArray[Any], want: npt.NDArray[Any]) -> None:
        """Compare one array with PyTorch's result."""
        if got.shape != want.shape:
            self.misses.append(f"{quantity}: shape {list(got.shape)}, PyTorch {list(want.shape)}")
            return
        wide = want.astype(np.float64)
        error = float(np.linalg.norm(got - wide)) / max(float(np.linalg.norm(wide)), 1e-30)
        self.errors[quantity] = max(self.errors.get(quantity, 0.0), error if math.isfinite(error) else math.inf)

    def check(self, model: str, precision: Precision) -> None:
        """Refuse the graph if an error exceeds the tolerance.

        Raises:
            ExportError: names the quantities, their errors and the tolerance.
        """
        limit = self.tolerance[precision]
        misses = self.misses + [f"{name}: error {error:.1e}" for name, error in self.errors.items() if error > limit]
        if misses:
            found = "; ".join(misses)
            raise ExportError(f"{model}: differs from PyTorch by more than {limit:g} ({precision}): {found}")

    def summary(self, precision: Precision) -> dict[str, object]:
        """Return the manifest entry; errors are rounded up to one digit, to be equal on all machines."""
        errors = {name: _rounded_up(error) for name, error in sorted(self.errors.items())}
        return {"compared": self.pieces, "tolerance": self.tolerance[precision], "relative_error": errors}


Comparison = Callable[[Engine, nn.Module, Preset, Parity], None]
"""Runs an engine and a module on the same inputs."""


def _rounded_up(value: float) -> float:
    if value == 0.0:
        return 0.0
    unit = 10.0 ** math.floor(math.log10(value))
    return float(f"{math.ceil(value / unit) * unit:.0e}")


@dataclass(frozen=True)
class Target:
    """Builder and comparison of one graph."""

    build: Callable[[Preset, TensorSource, Precision], Graph]
    compare: Comparison
    layered: bool
    """True if the graph has the stacks that `one_layer` cuts."""
    tolerance: Mapping[Precision, float] = field(default_factory=lambda: TOLERANCE)
    inspect: Callable[[Preset, TensorSource, Path], dict[str, Any]] | None = None
    """Measures quality beyond parity for the manifest, or raises ExportError; may write in the folder."""


def one_layer(preset: Preset) -> Preset:
    """Return the preset with one layer in each stack, at full width."""
    lm = replace(
        preset.lm,
        backbone=replace(preset.lm.backbone, num_layers=1),
        decoder=replace(preset.lm.decoder, num_layers=1),
    )
    return replace(preset, lm=lm, codec=replace(preset.codec, num_layers=1, num_layers_2=1))


class Reference:
    """The reference PyTorch network of a comparison, loaded once for all graphs of a network."""

    def __init__(self, preset: Preset, network: Network, source: TensorSource) -> None:
        """Load it, cut to one layer of each stack if it is too large.

        Raises:
            CheckpointError: the checkpoint does not fit the network.
        """
        if network == "f0" and isinstance(preset.f0, SwiftF0Config):
            from heartvoice.export.parity_f0 import f0_reference

            self.preset, self.whole, self.source, self.module = preset, True, source, f0_reference(preset.f0, source)
            return  # published as a graph: the published graph is the reference
        module = _build(preset, network)
        fits = sum(tensor.numel() for tensor in module.state_dict().values()) * 4 <= WHOLE_BYTES
        self.preset = preset if fits else one_layer(preset)
        self.whole = self.preset == preset
        module = module if self.whole else _build(self.preset, network)
        self.source = Part(source, module)
        load_module(module, self.source)
        self.module = module.eval()

    def compare(self, target: Target, path: Path, precision: Precision) -> dict[str, object]:
        """Compare a written graph with its module.

        Args:
            target: builder and comparison.
            path: the graph's file; a smaller temporary one may be written to its folder.
            precision: of the graph.

        Returns:
            The manifest entry.

        Raises:
            ExportError: they differ.
        """
        model = path.parent.parent.name
        whole = self.whole or not target.layered
        parity = Parity("whole" if whole else "one layer of each stack, at full width", tolerance=target.tolerance)
        with TemporaryDirectory(dir=path.parent) as temporary:
            if not whole:
                write_graph(target.build(self.preset, self.source, precision), Path(temporary))
                path = Path(temporary) / GRAPH_FILE
            engine = OnnxEngine(path)
        target.compare(engine, self.module, self.preset, parity)
        parity.check(model, precision)
        return parity.summary(precision)


def _build(preset: Preset, network: Network) -> nn.Module:
    return build_module(network_sizes(preset, network), decode_only=True)


class Part(TensorSource):
    """A checkpoint restricted to the tensors of a smaller network."""

    def __init__(self, source: TensorSource, module: nn.Module) -> None:
        """Keep the tensors that a module reads."""
        self._source = source
        self.names = frozenset(part for name in module.state_dict() for part in source.parts(name))

    def __str__(self) -> str:
        """Return the checkpoint's name."""
        return str(self._source)

    def where(self, name: str) -> str:
        """Return the checkpoint's answer."""
        return self._source.where(name)

    def _stored_shape(self, name: str) -> tuple[int, ...]:
        return self._source.shape(name)

    def _pieces(self, name: str) -> Iterator[npt.NDArray[Any]]:
        return self._source.pieces(name)
